"""The trace on disk: whole or not at all, in the agreed format, the same bytes each time."""

import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support import PROMPT, Read, tiny_model
from torch import Tensor

from layerdiff_hooks import LayerdiffError, trace, writer
from layerdiff_hooks.provenance import cpu_features, provenance
from layerdiff_hooks.writer import TraceWriter

PROMPTS = [{"id": "p", "category": None, "text": None, "token_ids": [1]}]
ALL_DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8]


class Usage(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


def started(out: Path) -> TraceWriter:
    return TraceWriter(out, "a", {}, {})


def fill(target: TraceWriter, count: int = 3) -> list[Tensor]:
    tensors = [torch.full((2, 3), float(i)) for i in range(count)]
    for i, tensor in enumerate(tensors):
        # Names that do not sort in the order of execution.
        target.add("p", 0, f"z{count - i}", tensor, derived=i == 1)
    return tensors


def test_values_of_every_dtype_come_back_bit_for_bit(tmp_path: Path) -> None:
    special = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1.5])
    with started(tmp_path / "t") as target:
        for i, dtype in enumerate(ALL_DTYPES):
            value = torch.arange(6) if dtype == torch.uint8 else special
            target.add("p", 0, f"point-{i}", value.to(dtype), derived=False)
        target.add("p", 0, "scalar", torch.tensor(2.0), derived=False)
        target.add("p", 0, "empty", torch.zeros(0, 3), derived=False)
        target.finish(PROMPTS, None)
    read = Read(tmp_path / "t")
    kinds = [entry["dtype"] for entry in read.manifest["tensors"]]
    assert kinds == ["F64", "F32", "F16", "BF16", "U8", "F32", "F32"]
    for i, dtype in enumerate(ALL_DTYPES[:-1]):
        stored = read(f"point-{i}")
        assert stored.dtype == dtype
        torch.testing.assert_close(stored, special.to(dtype), rtol=0, atol=0, equal_nan=True)
        assert torch.signbit(stored[1])
    assert read("empty").shape == (0, 3)


def test_order_is_that_of_execution_and_not_of_names(tmp_path: Path) -> None:
    with started(tmp_path / "t") as target:
        tensors = fill(target)
        target.finish(PROMPTS, None)
    read = Read(tmp_path / "t")
    assert read.points() == ["z3", "z2", "z1"]
    assert [entry["derived"] for entry in read.manifest["tensors"]] == [False, True, False]
    for name, tensor in zip(read.points(), tensors, strict=True):
        assert torch.equal(read(name), tensor)


def test_a_shard_is_written_when_more_than_its_size_is_pending(tmp_path: Path) -> None:
    with started(tmp_path / "t") as target:
        for i in range(5):
            target.add("p", i, "x", torch.zeros(25), derived=False)
            target.flush(at_least=150)
        target.finish(PROMPTS, None)
    read = Read(tmp_path / "t")
    names = [shard["file"] for shard in read.manifest["shards"]]
    assert names == [f"shard-{i:05}.safetensors" for i in range(3)]
    assert [entry["shard"] for entry in read.manifest["tensors"]] == [0, 0, 1, 1, 2]


def test_a_capture_keeps_no_more_than_a_layer_beyond_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    with torch.no_grad(), trace(model, tmp_path / "one"):
        model(PROMPT)
    flush = TraceWriter.flush
    monkeypatch.setattr(TraceWriter, "flush", lambda self, at_least=1: flush(self, at_least))
    with torch.no_grad(), trace(model, tmp_path / "many"):
        model(PROMPT)
    one, many = Read(tmp_path / "one"), Read(tmp_path / "many")
    assert len(one.manifest["shards"]) == 1
    assert len(many.manifest["shards"]) == 5
    layers = [many.entries[0, f"model.layers.{i}"]["shard"] for i in range(4)]
    assert layers == [0, 1, 2, 3]
    assert many.entries[0, "model.norm"]["shard"] == 4
    assert all(torch.equal(many.tensors[key], value) for key, value in one.tensors.items())


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    model = tiny_model()
    for name in ("one", "two"):
        with torch.no_grad(), trace(model, tmp_path / name, check=True):
            model(PROMPT)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_nothing_has_the_name_of_the_trace_before_it_is_complete(tmp_path: Path) -> None:
    with started(tmp_path / "t") as target:
        fill(target)
        target.flush(at_least=-1)
        assert [p.name for p in tmp_path.iterdir()] == [target.folder.name]
        assert target.folder.name.startswith(".t.")
        target.finish(PROMPTS, None)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_removes_what_was_written(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), started(tmp_path / "t") as target:
        fill(target)
        target.flush(at_least=-1)
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file", "broken link"])
def test_an_existing_target_is_refused_and_untouched(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "t"
    match kind:
        case "directory":
            out.mkdir()
        case "file":
            out.write_text("mine")
        case _:
            out.symlink_to(tmp_path / "nowhere")
    before = out.lstat()
    with pytest.raises(LayerdiffError, match="already exists"):
        started(out)
    assert out.lstat() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_target_that_comes_into_being_meanwhile_is_untouched(tmp_path: Path) -> None:
    with (
        pytest.raises(LayerdiffError, match="already exists"),
        started(tmp_path / "t") as target,
    ):
        fill(target)
        (tmp_path / "t").mkdir()
        target.finish(PROMPTS, None)
    assert list((tmp_path / "t").iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_of_two_writers_the_first_to_finish_wins(tmp_path: Path) -> None:
    with started(tmp_path / "t") as one, started(tmp_path / "t") as other:
        tensors = fill(one)
        fill(other, count=1)
        one.finish(PROMPTS, None)
        with pytest.raises(LayerdiffError, match="already exists"):
            other.finish(PROMPTS, None)
    assert len(Read(tmp_path / "t").tensors) == len(tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_full_disk_is_noticed_before_a_shard_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    with (
        pytest.raises(LayerdiffError, match="no room for a shard of 72 bytes"),
        started(tmp_path / "t") as target,
    ):
        fill(target)
        target.flush(at_least=-1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["with the next shard", "at the end"])
def test_a_shard_that_cannot_be_written_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "save_file", full)
    with (
        pytest.raises(LayerdiffError, match=r"cannot write .*No space left on device"),
        started(tmp_path / "t") as target,
    ):
        for step in range(writer.UNWRITTEN + 1 if when == "with the next shard" else 1):
            target.add("p", step, "x", torch.zeros(25), derived=False)
            target.flush(at_least=-1)
        assert when == "at the end"
        target.finish(PROMPTS, None)
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_holds_the_model_up_instead_of_filling_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, may_go_on, begun = writer.save_file, threading.Event(), []

    def slow(tensors: dict[str, Tensor], path: Path) -> None:
        begun.append(path)
        assert may_go_on.wait(60)
        real(tensors, path)

    monkeypatch.setattr(writer, "save_file", slow)
    added = []

    def add(target: TraceWriter) -> None:
        for step in range(writer.UNWRITTEN + 3):
            target.add("p", step, "x", torch.zeros(25), derived=False)
            target.flush(at_least=-1)
            added.append(step)

    with started(tmp_path / "t") as target:
        model = threading.Thread(target=add, args=(target,))
        model.start()
        model.join(0.5)
        assert (len(begun), len(added)) == (1, writer.UNWRITTEN)
        may_go_on.set()
        model.join()
        target.finish(PROMPTS, None)
    assert len(Read(tmp_path / "t").tensors) == writer.UNWRITTEN + 3


def test_a_point_twice_in_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerdiffError, match="seen twice"), started(tmp_path / "t") as target:
        target.add("p", 0, "x", torch.zeros(1), derived=False)
        target.add("p", 1, "x", torch.zeros(1), derived=False)
        target.add("p", 0, "x", torch.zeros(1), derived=False)


def test_a_dtype_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerdiffError, match=r"torch\.int64"), started(tmp_path / "t") as target:
        target.add("p", 0, "x", torch.zeros(1, dtype=torch.long), derived=False)


def test_a_trace_without_tensors_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(LayerdiffError, match="no tensor"),
        started(tmp_path / "t") as target,
    ):
        target.finish(PROMPTS, None)
    assert list(tmp_path.iterdir()) == []


def test_missing_parents_are_made_and_an_unusable_one_is_named(tmp_path: Path) -> None:
    with started(tmp_path / "a" / "b" / "t") as target:
        fill(target)
        target.finish(PROMPTS, None)
    assert (tmp_path / "a" / "b" / "t" / "manifest.json").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(LayerdiffError, match="cannot write"):
        started(tmp_path / "file" / "t")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ü", "a\n", ".", ".."])
def test_prompt_ids_of_other_characters_or_other_directories_are_refused(name: str) -> None:
    with pytest.raises(LayerdiffError, match="not allowed"):
        writer.require_prompt_id(name)


@pytest.mark.parametrize("name", ["a.b", ".a", "..."])
def test_prompt_ids_may_have_dots(name: str) -> None:
    writer.require_prompt_id(name)


def test_hashes_cover_names_and_bytes_in_byte_order(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "b.safetensors").write_bytes(b"2")
    (tmp_path / "B.safetensors").write_bytes(b"1")
    hashes: dict[str, Any] = provenance(torch.float32, "eager", tmp_path)["hashes"]
    # printf '{}' | sha256sum
    assert hashes["config"] == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert hashes["tokenizer"] is None
    # (echo "B.safetensors $(printf 1 | sha256sum | cut -d' ' -f1)";
    #  echo "b.safetensors $(printf 2 | sha256sum | cut -d' ' -f1)") | sha256sum
    assert (
        hashes["weights"]
        == "sha256:3e0344bc533af2398d192006ae4e148440fd0629d6ec1969dc3555eea7a39f89"
    )
    assert provenance(torch.float32, "eager", None)["hashes"]["weights"] is None


def test_cpu_features_are_read_from_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nflags\t\t: fma sse avx2 avx f16c\nbugs : avx512f\n")
    assert cpu_features(file) == ["avx", "avx2", "f16c", "fma"]
    file.write_text("Features\t: fp asimd crc32\n")
    assert cpu_features(file) == ["neon"]
    assert cpu_features(tmp_path / "none") == []
