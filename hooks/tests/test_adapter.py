"""Adapters: which points they add, that the values add up, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import Read, captured, tiny_model
from torch import Tensor

import layerdiff_hooks
from layerdiff_hooks import LayerdiffError
from layerdiff_hooks.adapter import put_on
from layerdiff_hooks.architecture import LowRank, adapted, load_architecture

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
Q_PROJ = "model.layers.3.self_attn.q_proj"
OUT_PROJ = "model.layers.0.linear_attn.out_proj"
TARGETS = ["q_proj", "out_proj", "in_proj_a", "down_proj"]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for the tiny model whose lora_B is not zero, as PEFT saves it."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS, init_lora_weights=False)
    peft.get_peft_model(tiny_model(), config).save_pretrained(str(folder))
    return folder


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "adapter"))


def with_config(folder: Path, **values: Any) -> Path:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | values))
    return folder


def with_tensors(folder: Path, change: Any) -> Path:
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(LayerdiffError) as caught:
        put_on(tiny_model(), folder)
    return f"{caught.value.message} {caught.value.hint}"


@pytest.fixture(scope="session")
def read(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Read:
    model = tiny_model()
    put_on(model, saved)
    return captured(model, tmp_path_factory.mktemp("adapted") / "trace", steps=1)


def test_the_parts_of_an_adapted_linear_come_before_it(read: Read) -> None:
    points = read.points()
    for name in (Q_PROJ, OUT_PROJ):
        at = points.index(name)
        expected = [f"{name}.base_layer", f"{name}.lora_A", f"{name}.lora_B"]
        assert points[at - 3 : at] == expected
    assert read(f"{Q_PROJ}.lora_A").shape == (70, 3)
    assert read(f"{Q_PROJ}.lora_B", 1).shape == (1, 128)
    assert read.manifest["adapter"]["modules"][Q_PROJ] == {"rank": 3, "scale": 5 / 3}
    assert len(read.manifest["adapter"]["modules"]) == 3 * 3 + 2
    assert "peft" in read.manifest["provenance"]["libraries"]


def test_an_adapted_linear_is_its_base_plus_the_scaled_update(read: Read, saved: Path) -> None:
    weights = load_file(saved / WEIGHTS)

    def factor(name: str, part: str) -> Tensor:
        return weights[f"base_model.model.{name}.{part}.weight"].double()

    inputs = {Q_PROJ: "model.layers.3.input_layernorm", OUT_PROJ: "model.layers.0.linear_attn.norm"}
    for name, source in inputs.items():
        x = read.wide(source).flatten(1)
        down, up = read.wide(f"{name}.lora_A"), read.wide(f"{name}.lora_B")
        torch.testing.assert_close(down, x @ factor(name, "lora_A").T, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(up, down @ factor(name, "lora_B").T, rtol=1e-5, atol=1e-5)
        total = read.wide(f"{name}.base_layer") + 5 / 3 * up
        torch.testing.assert_close(read.wide(name), total, rtol=1e-5, atol=1e-5)


def test_the_base_is_what_the_linear_computes_without_an_adapter(
    read: Read, tmp_path: Path
) -> None:
    plain = captured(tiny_model(), tmp_path / "plain")
    first = "model.layers.0.linear_attn.in_proj_a"
    assert torch.equal(read(f"{first}.base_layer"), plain(first))
    assert not torch.equal(read(first), plain(first))
    assert "adapter" not in plain.manifest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_adapter_takes_the_precision_of_the_model(
    saved: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = tiny_model()
    if dtype == torch.float64:
        put_on(model, saved)
        layerdiff_hooks.to_float64(model)
    else:
        put_on(model.to(dtype), saved)
    factors = [p for name, p in model.named_parameters() if "lora_" in name]
    assert factors
    assert all(p.dtype == dtype for p in factors)


def test_a_peft_model_is_sent_to_its_base_model(saved: Path, tmp_path: Path) -> None:
    model = peft.PeftModel.from_pretrained(tiny_model(), str(saved)).eval()
    with pytest.raises(LayerdiffError, match="PeftModel"):
        layerdiff_hooks.trace(model, tmp_path / "trace")
    base = model.get_base_model()
    assert f"{Q_PROJ}.lora_B" in captured(base, tmp_path / "trace").points()
    with model.disable_adapter(), pytest.raises(LayerdiffError, match="switched off"):
        layerdiff_hooks.trace(base, tmp_path / "other")


def test_any_linear_can_be_adapted_and_nothing_else() -> None:
    architecture = load_architecture("qwen3_5")
    config = tiny_model().config.to_dict()
    points = architecture.points(config)
    linears = [point.name for point in points if point.op == "linear"]
    assert "lm_head" in linears
    every = adapted(points, {name: LowRank(2, 1.0) for name in linears})
    assert len(every) == len(points) + 3 * len(linears)
    with pytest.raises(LayerdiffError, match="which no point shows"):
        adapted(points, {"model.norm": LowRank(2, 1.0)})


def test_an_adapter_of_the_model_with_a_vision_tower_is_the_same(
    adapter: Path, read: Read, tmp_path: Path
) -> None:
    def wrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            k.replace(".model.layers", ".model.language_model.layers"): t
            for k, t in tensors.items()
        }

    model = tiny_model()
    put_on(model, with_tensors(adapter, wrapped))
    other = captured(model, tmp_path / "trace")
    assert torch.equal(other("lm_head"), read("lm_head"))


def test_missing_files_are_named(adapter: Path, tmp_path: Path) -> None:
    assert "no adapter directory" in refusal(tmp_path / "nothing")
    (adapter / WEIGHTS).unlink()
    assert WEIGHTS in refusal(adapter)
    (adapter / CONFIG).unlink()
    assert CONFIG in refusal(adapter)


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_dora", True), ("bias", "all"), ("modules_to_save", ["lm_head"]), ("lora_bias", True)],
)
def test_what_is_more_than_two_factors_is_refused(adapter: Path, key: str, value: Any) -> None:
    assert f"{key} is set" in refusal(with_config(adapter, **{key: value}))


def test_an_adapter_for_another_model_is_refused(adapter: Path) -> None:
    other = with_config(adapter, target_modules=["c_attn"])
    assert "another model" in refusal(other)


def test_tensors_of_other_sizes_are_refused(adapter: Path) -> None:
    def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: (t[:, ::2].contiguous() if "lora_A" in k else t) for k, t in tensors.items()}

    assert "does not fit" in refusal(with_tensors(adapter, halved))


def test_a_tensor_that_peft_would_only_warn_of_is_refused(adapter: Path) -> None:
    def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("layers.0.", "layers.9."): tensor for name, tensor in tensors.items()}

    assert "missing tensors" in refusal(with_tensors(adapter, moved))


def test_weights_that_are_not_finite_are_refused(adapter: Path) -> None:
    def spoilt(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        next(iter(tensors.values()))[0, 0] = float("nan")
        return tensors

    assert "not finite" in refusal(with_tensors(adapter, spoilt))
