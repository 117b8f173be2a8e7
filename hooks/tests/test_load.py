"""What the loader takes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from layerdiff_hooks.load import CheckpointError, load_text_model

SYNTHETIC = Path(__file__).parents[1] / "scripts" / "synthetic.py"
WEIGHTS = "model.safetensors"
EMBEDDING = "model.language_model.embed_tokens.weight"
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]])
Change = Callable[[Path], None]


def synthetic(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, SYNTHETIC, *arguments], check=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoints") / "tiny"
    synthetic("--shape", "tiny", out)
    return out


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_text_model(folder)(input_ids=IDS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_equals_what_transformers_loads(tiny: Path, dtype: torch.dtype) -> None:
    ours = load_text_model(tiny, dtype)
    theirs = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    for (name, one), (other_name, other) in zip(
        [*ours.named_parameters(), *ours.named_buffers()],
        [*theirs.named_parameters(), *theirs.named_buffers()],
        strict=True,
    ):
        assert name == other_name
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name
    with torch.no_grad():
        assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)


def test_loading_draws_no_random_numbers(tiny: Path) -> None:
    before = torch.get_rng_state()
    load_text_model(tiny)
    assert torch.equal(before, torch.get_rng_state())


def test_the_attention_implementation_can_be_chosen(tiny: Path) -> None:
    model = load_text_model(tiny, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"


def test_a_tied_head_is_the_embedding_itself(tiny: Path) -> None:
    model = load_text_model(tiny)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_same_seed_writes_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    synthetic("--shape", "tiny", tmp_path / "again")
    for file in sorted(tiny.iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_an_untied_head_is_near_the_embedding_but_another_matrix(
    tiny: Path, tmp_path: Path
) -> None:
    synthetic("--untie", tiny, tmp_path / "untied")
    model = load_text_model(tmp_path / "untied")
    head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
    distance = (head - embedding).norm() / embedding.norm()
    assert 0.01 < distance < 0.1


def test_names_without_language_model_are_accepted(copy: Path, tiny: Path) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace("model.language_model.", "model.")] = tensors.pop(name)

    change_tensors(copy, rename)
    assert torch.equal(logits(copy), logits(tiny))


def test_a_flat_config_is_accepted(copy: Path, tiny: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config["text_config"]))
    assert torch.equal(logits(copy), logits(tiny))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_in_another_precision_keep_their_values(
    copy: Path, tiny: Path, dtype: torch.dtype
) -> None:
    change_tensors(
        copy, lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()})
    )
    # BF16 values this small lose a little in F16's subnormals, nothing in F32.
    tolerance = 0.0 if dtype == torch.float32 else 1e-5
    torch.testing.assert_close(logits(copy), logits(tiny), rtol=0.0, atol=tolerance)


def test_vision_and_multi_token_prediction_tensors_are_left_alone(copy: Path, tiny: Path) -> None:
    extra = {name: torch.zeros(2) for name in ("model.visual.merger.bias", "mtp.norm.weight")}
    change_tensors(copy, lambda tensors: tensors.update(extra))
    assert torch.equal(logits(copy), logits(tiny))


def split(folder: Path) -> dict[str, str]:
    """Move the weights of ``folder`` into two shards; return the weight map."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for shard, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_give_the_same_model(copy: Path, tiny: Path) -> None:
    split(copy)
    assert torch.equal(logits(copy), logits(tiny))


def test_a_shard_that_is_not_there_is_named(copy: Path) -> None:
    split(copy)
    (copy / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors: no such file"):
        load_text_model(copy)


def test_a_shard_without_a_tensor_of_the_index_is_named(copy: Path) -> None:
    weight_map = split(copy)
    moved = next(name for name, shard in weight_map.items() if shard == "a.safetensors")
    write_index(copy, weight_map | {moved: "b.safetensors"})
    with pytest.raises(CheckpointError, match=rf"b\.safetensors: {moved} is not there"):
        load_text_model(copy)


def test_a_shard_outside_the_folder_is_refused(copy: Path) -> None:
    weight_map = split(copy)
    write_index(copy, dict.fromkeys(weight_map, "../a.safetensors"))
    with pytest.raises(CheckpointError, match="expected a file name"):
        load_text_model(copy)


def drop_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.pop("model.language_model.norm.weight"))


def add_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({"model.language_model.extra": torch.zeros(1)}))


def cut_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({EMBEDDING: t[EMBEDDING][1:].contiguous()}))


def double_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({"model.norm.weight": torch.zeros(64)}))


def quantize_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({EMBEDDING: t[EMBEDDING].to(torch.int8)}))


def truncate_file(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def other_head_in_tied_model(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({"lm_head.weight": 2 * t[EMBEDDING]}))


def untie_without_head(folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False

    change_config(folder, change)


def contradict_ties(folder: Path) -> None:
    change_config(folder, lambda config: config.update(tie_word_embeddings=False))


def other_model_type(folder: Path) -> None:
    change_config(folder, lambda config: config["text_config"].update(model_type="gpt2"))


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_tensor, r"1 missing: model\.norm\.weight"),
        (add_tensor, r"1 unexpected: model\.extra"),
        (cut_tensor, r"embed_tokens\.weight: expected shape \[307, 64\], got \[306, 64\]"),
        (double_tensor, r"are both model\.norm\.weight"),
        (quantize_tensor, r"expected F32, F16 or BF16, got torch\.int8"),
        (truncate_file, r"model\.safetensors: "),
        (other_head_in_tied_model, r"lm_head\.weight differs from"),
        (untie_without_head, r"missing: lm_head\.weight\nhint: "),
        (contradict_ties, r"False at top level and True in text_config\nhint: "),
        (other_model_type, r"text_config\.model_type: expected .* got 'gpt2'"),
        (no_weights, r"neither model\.safetensors nor"),
        (no_config, r"config\.json: no such file"),
        (broken_config, r"config\.json: "),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_cause(
    copy: Path, change: Change, message: str
) -> None:
    change(copy)
    with pytest.raises(CheckpointError, match=message):
        load_text_model(copy)


def test_a_head_that_repeats_the_tied_embedding_is_accepted(copy: Path, tiny: Path) -> None:
    change_tensors(copy, lambda t: t.update({"lm_head.weight": t[EMBEDDING].clone()}))
    assert torch.equal(logits(copy), logits(tiny))


def test_a_dtype_that_is_no_float_is_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match="dtype: expected one of"):
        load_text_model(tiny, torch.int8)
