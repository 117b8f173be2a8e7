"""The command line as a person or layerdiff meets it: stdout, stderr and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from support import Read, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers

import layerdiff_hooks
from layerdiff_hooks.cli import main

WORDS = ["the", "tide", "turns", "twice", "a", "day", "and", "boats", "wait"]
LINES = [
    {"id": "sea-1", "category": "prose", "text": "the tide turns"},
    {"id": "ids-2", "token_ids": [5, 6, 7, 8], "forced_ids": [9, 10]},
]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in the layout of a published checkpoint."""
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model().bfloat16()
    tensors = {
        name.replace("model.", "model.language_model.", 1): value.contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")
    text = {k: v for k, v in model.config.to_dict().items() if v is not None and k != "dtype"}
    config = {"model_type": "qwen3_5", "text_config": text, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*WORDS, "[UNK]"]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write(tmp_path, LINES)


def write(folder: Path, lines: list[Any]) -> Path:
    file = folder / "prompts.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text(text + "\n\n", encoding="utf-8")
    return file


def command(model: Path, prompts: Path, out: Path, *more: str) -> list[str]:
    named = ["--model", str(model), "--prompts", str(prompts), "--out", str(out)]
    return ["capture", *named, *more]


Capsys = pytest.CaptureFixture[str]


def test_generate_writes_what_the_model_went_on_with(
    tmp_path: Path, checkpoint: Path, prompts: Path
) -> None:
    args = ["generate", *command(checkpoint, prompts, tmp_path / "dumps", "--steps", "2")[1:]]
    assert main(args) == 0
    free = Read(tmp_path / "dumps" / "sea-1").manifest
    said = free["generated"]
    assert said["token_ids"] == free["prompts"][0]["step_token_ids"]
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert said["text"] == tokenizer.decode(said["token_ids"], skip_special_tokens=False)
    assert 0 < said["seconds"] < 600
    # What was forced was not generated.
    assert "generated" not in Read(tmp_path / "dumps" / "ids-2").manifest


def test_capture_writes_a_checked_trace(
    tmp_path: Path, checkpoint: Path, prompts: Path, capsys: Capsys
) -> None:
    assert main(command(checkpoint, prompts, tmp_path / "t", "--progress", "json")) == 0
    read, output = Read(tmp_path / "t"), capsys.readouterr()
    assert [p["token_ids"] for p in read.manifest["prompts"]] == [[0, 1, 2], [5, 6, 7, 8]]
    assert [p["category"] for p in read.manifest["prompts"]] == ["prose", None]
    assert "step_token_ids" not in read.manifest["prompts"][0]
    assert read.manifest["self_check"]["evidence"][0]["elements"] == 7 * 61
    assert read.manifest["config"] == json.loads((checkpoint / "config.json").read_text())
    assert all(h.startswith("sha256:") for h in read.manifest["provenance"]["hashes"].values())
    events = [json.loads(line) for line in output.err.splitlines()]
    assert [(e["event"], e["id"], e["tokens"], e["number"], e["of"]) for e in events] == [
        ("prompt", "sea-1", 3, 1, 2),
        ("prompt", "ids-2", 4, 2, 2),
    ]
    assert {e["tensors"] for e in events} == {e["expected_tensors"] for e in events}
    assert "2 prompts" in output.out


def test_steps_are_greedy_or_forced(
    tmp_path: Path, checkpoint: Path, prompts: Path, capsys: Capsys
) -> None:
    out = tmp_path / "t"
    assert main(command(checkpoint, prompts, out, "--steps", "2", "--prompt", "ids-2")) == 0
    (prompt,) = Read(out).manifest["prompts"]
    assert prompt["step_token_ids"] == [9, 10]
    out = tmp_path / "u"
    assert main(command(checkpoint, prompts, out, "--steps", "2", "--prompt", "sea-1")) == 0
    read = Read(out)
    logits = [read("lm_head", step)[-1] for step in range(3)]
    fed = read.manifest["prompts"][0]["step_token_ids"]
    assert fed == [int(logits[0].argmax()), int(logits[1].argmax())]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("float32", "F32"), ("float64", "F64"), ("bfloat16", "BF16"), ("float16", "F16")],
)
def test_the_model_runs_in_the_dtype_that_is_asked_for(
    tmp_path: Path, checkpoint: Path, prompts: Path, dtype: str, kind: str
) -> None:
    more = ["--dtype", dtype, "--prompt", "sea-1", "--steps", "1"]
    assert main(command(checkpoint, prompts, tmp_path / "t", *more)) == 0
    read = Read(tmp_path / "t")
    assert read.manifest["provenance"]["dtype"] == dtype
    assert read.entries[0, "lm_head"]["dtype"] == kind
    if dtype == "float64":
        assert {entry["dtype"] for entry in read.manifest["tensors"]} == {"F64", "U8"}
        frequencies = 1e7 ** -(torch.arange(4, dtype=torch.float64) / 4)
        cos = (2 * frequencies).cos()
        torch.testing.assert_close(read("model.rotary_emb.cos")[2], cos, rtol=1e-14, atol=0)
    assert torch.get_default_dtype() == torch.float32


def test_lora_puts_an_adapter_on_the_model(
    tmp_path: Path, checkpoint: Path, prompts: Path, capsys: Capsys
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    peft.get_peft_model(tiny_model(), config).save_pretrained(str(tmp_path / "adapter"))
    name = "model.layers.3.self_attn.v_proj"
    more = ["--lora", str(tmp_path / "adapter"), "--points", f"{name}*", "--prompt", "sea-1"]
    assert main(command(checkpoint, prompts, tmp_path / "t", *more)) == 0
    read = Read(tmp_path / "t")
    parts = [".base_layer", ".lora_A", ".lora_B", ""]
    assert read.points() == [f"{name}{part}" for part in parts]
    assert read.manifest["provenance"]["hashes"]["adapter"].startswith("sha256:")
    more = ["--lora", str(tmp_path / "nothing")]
    assert main(command(checkpoint, prompts, tmp_path / "u", *more)) == 2
    assert "no adapter directory" in capsys.readouterr().err


def test_sdpa_points_and_threads_are_options(
    tmp_path: Path, checkpoint: Path, prompts: Path
) -> None:
    more = ["--attention", "sdpa", "--points", "*.self_attn.*", "--threads", "2"]
    before = torch.get_num_threads()
    assert main(command(checkpoint, prompts, tmp_path / "t", *more)) == 0
    torch.set_num_threads(before)
    read = Read(tmp_path / "t")
    assert read.manifest["provenance"]["attention_implementation"] == "sdpa"
    assert read.manifest["provenance"]["threads"] == 2
    assert all(".self_attn." in point for _, _, point in read.order)


def without(name: str) -> Callable[[Path, Path], None]:
    return lambda model, folder: (model / name).unlink()


def with_line(*lines: Any) -> Callable[[Path, Path], None]:
    return lambda model, folder: write(folder, list(lines)) and None


def with_config(**values: Any) -> Callable[[Path, Path], None]:
    def change(model: Path, folder: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **values}))

    return change


def nothing(model: Path, folder: Path) -> None:
    """Leave all as it is."""


@pytest.mark.parametrize(
    ("change", "more", "error", "hint"),
    [
        (nothing, ["--model", "/no/such"], "model /no/such is not a directory", "--model takes"),
        (without("config.json"), [], "has no config.json", "--model takes"),
        (without("tokenizer.json"), [], "has no tokenizer.json", "token_ids"),
        (without("model.safetensors"), [], "neither model.safetensors nor", None),
        (nothing, ["--prompts", "/no/such"], "cannot read prompts /no/such", None),
        (nothing, ["--prompt", "sea-2"], "has no prompt 'sea-2'", "did you mean 'sea-1'?"),
        (nothing, ["--points", "model.layer*s.9"], "no point matches", "did you mean"),
        (nothing, ["--steps", "3"], "prompt 'ids-2' forces 2 tokens, not 3", "fewer --steps"),
        (with_line(), [], "has no prompts", "write lines"),
        (with_line("{"), [], "prompts.jsonl:1: not JSON", None),
        (with_line([1]), [], ":1: expected an object with an id", None),
        (with_line({"id": "a b", "text": "x"}), [], ":1: prompt id 'a b'", "ASCII"),
        (with_line({"id": "a", "text": ""}), [], "neither text nor token_ids", None),
        (with_line({"id": "a", "text": "  "}), [], "prompt 'a' has no tokens", None),
        (with_line({"id": "a", "token_ids": []}), [], "prompt 'a' has no tokens", None),
        (with_line({"id": "a", "token_ids": [1.5]}), [], "token_ids is not an array", None),
        (with_line({"id": "a", "token_ids": [61]}), [], "token id 61 is not in the", "tokenized"),
        (with_line({"id": "a", "token_ids": [-1]}), [], "token id -1 is not in the", "tokenized"),
        (
            with_line({"id": "a", "token_ids": [1], "forced_ids": [99]}),
            [],
            "token id 99 is not in the vocabulary of 61",
            "tokenized",
        ),
        (with_line(*[{"id": "a", "text": "the"}] * 2), [], ":2: a second prompt", None),
        (with_config(model_type="gpt9"), [], "for model type 'gpt9'", "known model types"),
    ],
)
def test_bad_input_ends_with_2_an_error_and_nothing_written(
    tmp_path: Path,
    checkpoint: Path,
    capsys: Capsys,
    change: Callable[[Path, Path], None],
    more: list[str],
    error: str,
    hint: str | None,
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in checkpoint.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    prompts = write(tmp_path, LINES)
    change(model, tmp_path)
    assert main(command(model, prompts, tmp_path / "t", *more)) == 2
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert hint is None or (lines[1].startswith("hint: ") and hint in lines[1])
    assert output.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"model", "prompts.jsonl"}


def test_an_existing_trace_is_refused_before_any_work(
    tmp_path: Path, checkpoint: Path, prompts: Path, capsys: Capsys
) -> None:
    (tmp_path / "t").mkdir()
    assert main(command(checkpoint, prompts, tmp_path / "t")) == 2
    assert "already exists" in capsys.readouterr().err
    assert list((tmp_path / "t").iterdir()) == []


def environment(path: Path | None = None) -> dict[str, str]:
    home = Path(layerdiff_hooks.__file__).parents[1]
    places = [str(place) for place in (path, home) if place is not None]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def run(arguments: list[str], path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "layerdiff_hooks", *arguments],
        env=environment(path),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing_behind(
    tmp_path: Path, checkpoint: Path, prompts: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out" / "t"
    arguments = command(checkpoint, prompts, out, "--prompt", "sea-1", "--steps", "100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "layerdiff_hooks", *arguments],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell ignore interrupts, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        limit = time.monotonic() + 120
        while not list(tmp_path.glob("out/.t.*")) and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors == "interrupted; nothing is left behind\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_doctor_names_the_versions(capsys: Capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["layerdiff_hooks"] == layerdiff_hooks.__version__
    assert found["libraries"]["torch"] == torch.__version__.split("+")[0]
    assert main(["doctor"]) == 0
    assert "transformers" in capsys.readouterr().out


def test_without_torch_doctor_and_capture_say_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    result = run(["doctor", "--json"], tmp_path)
    assert result.returncode == 2
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["libraries"]["torch"] is None
    assert any("no torch here" in problem for problem in found["problems"])
    assert "hint: install what is missing" in result.stderr
    result = run(command(tmp_path, tmp_path, tmp_path / "t"), tmp_path)
    assert result.returncode == 2
    assert "error: cannot capture: no torch here" in result.stderr
    assert "hint: install what is missing" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_and_version_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    assert "capture" in run(["--help"], tmp_path).stdout
    assert run(["--version"], tmp_path).stdout.strip() == layerdiff_hooks.__version__


def test_activations_are_rounded_on_request(
    tmp_path: Path, checkpoint: Path, prompts: Path, capsys: Capsys
) -> None:
    more = ["--prompt", "sea-1", "--steps", "1"]
    assert main(command(checkpoint, prompts, tmp_path / "t", *more)) == 0
    assert main(command(checkpoint, prompts, tmp_path / "u", *more, "--activation-bits", "8")) == 0
    plain, rounded = Read(tmp_path / "t"), Read(tmp_path / "u")
    assert rounded.manifest["provenance"]["activation_bits"] == 8
    assert rounded.manifest["self_check"]["status"] == "bit-equal"
    point = "model.layers.0.linear_attn.in_proj_qkv"
    moved = (rounded(point) - plain(point)).norm() / plain(point).norm()
    assert 1e-4 < moved < 2e-2
    capsys.readouterr()
    bad = command(checkpoint, prompts, tmp_path / "v", "--activation-bits", "8")
    assert main([*bad, "--dtype", "bfloat16"]) == 2
    assert "torch.bfloat16 cannot hold" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()
