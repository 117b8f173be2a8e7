"""Activations in 8 bits: the numbers, where they are seen, and that nothing stays behind."""

from pathlib import Path

import pytest
import torch
from support import PROMPT, Read, captured, tiny_model
from torch import Tensor, nn
from transformers import Qwen3_5ForCausalLM

import layerdiff_hooks
from layerdiff_hooks import LayerdiffError, float64_arithmetic, rounded_activations, to_float64
from layerdiff_hooks.activations import rounded
from layerdiff_hooks.architecture import load_architecture
from layerdiff_hooks.calls import with_cache


def by_hand(vector: list[float]) -> list[float]:
    """One vector in float32, number by number, as the kernel's source reads."""

    def f32(value: float) -> float:
        return float(torch.tensor(value, dtype=torch.float32))

    largest = max(abs(x) for x in vector)
    if largest == 0:
        return [0.0] * len(vector)
    scale = f32(largest / 127)
    inverse = f32(1 / scale)
    found = []
    for x in vector:
        scaled = f32(x * inverse)
        code = int(abs(scaled) + 0.5) * (1 if scaled > 0 else -1)
        found.append(f32(max(-127, min(127, code)) * scale))
    return found


def test_each_vector_is_rounded_to_127_steps_of_its_largest_number() -> None:
    x = torch.randn(5, 33, generator=torch.Generator().manual_seed(3))
    x[1] *= 1e-30
    expected = torch.tensor([by_hand(row) for row in x.tolist()])
    assert torch.equal(rounded(x, 8), expected)
    assert torch.equal(rounded(x[None, 2], 8)[0], expected[2])


def test_halves_go_away_from_zero_and_what_is_just_below_does_not() -> None:
    below = 0.49999997
    x = torch.tensor([127.0, 0.5, -0.5, 1.5, 2.5, -2.5, below, -below])
    assert rounded(x, 8).tolist() == [127, 1, -1, 2, 3, -3, 0, 0]


def test_the_inverse_of_the_scale_is_rounded_before_it_is_multiplied() -> None:
    # The quotient by the scale is 4.5; the product with its rounded inverse is just below.
    x = torch.tensor([1.0, 0.03543306887149811])
    assert rounded(x, 8)[1] == 4 * (torch.tensor(1.0) / 127)


def test_a_vector_of_zeros_stays_one() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert torch.equal(rounded(x, 8), x)


def test_in_float64_the_scale_is_a_float64() -> None:
    x = torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    assert rounded(x, 8).tolist() == [[127 * (1 / 127), 38 * (1 / 127)]]


def linear_of(read: Read, model: nn.Module, name: str, source: str) -> tuple[Tensor, Tensor]:
    """What a linear gave, and what it gives for its captured input after rounding."""
    linear = model.get_submodule(name)
    with torch.no_grad():
        return read(name), linear(rounded(read(source), 8))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("model.layers.0.linear_attn.in_proj_qkv", "model.layers.0.input_layernorm"),
        ("model.layers.3.self_attn.o_proj", "model.layers.3.self_attn.gated_context"),
        ("model.layers.3.mlp.down_proj", "model.layers.3.mlp.act"),
        ("lm_head", "model.norm"),
    ],
)
def test_a_linear_reads_rounded_numbers_and_the_trace_has_them_unrounded(
    tmp_path: Path, model: Qwen3_5ForCausalLM, name: str, source: str
) -> None:
    with rounded_activations(model, 8):
        read = captured(model, tmp_path / "t", steps=1)
    got, expected = linear_of(read, model, name, source)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    captured_input = read(source)
    assert not torch.equal(captured_input, rounded(captured_input, 8))


def test_every_linear_of_the_description_is_rounded_and_no_other_is_there(
    model: Qwen3_5ForCausalLM,
) -> None:
    architecture = load_architecture("qwen3_5_text")
    linear = {c["point"] for c in architecture.data["component"] if c["op"] == "linear"}
    described = {name.replace("{i}", str(i)) for name in linear for i in range(4)}
    found = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert found <= described
    with rounded_activations(model, 8):
        rounding = {name for name, m in model.named_modules() if "forward" in vars(m)}
    assert rounding == found


def test_the_model_is_as_before_afterwards_also_after_an_error(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    before = [set(vars(module)) for module in model.modules()]
    with pytest.raises(ZeroDivisionError), rounded_activations(model, 8):
        raise ZeroDivisionError
    assert [set(vars(module)) for module in model.modules()] == before
    assert "activation_bits" not in captured(model, tmp_path / "t").manifest["provenance"]


def test_the_self_check_and_the_provenance_are_those_of_the_rounded_model(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    with torch.no_grad(), rounded_activations(model, 8):
        expected = model(PROMPT).logits
        with layerdiff_hooks.trace(model, tmp_path / "t", check=True):
            output = model(PROMPT)
            model(torch.tensor([[3]]), **with_cache(model, output.past_key_values))
    read = Read(tmp_path / "t")
    assert read.manifest["self_check"]["status"] == "bit-equal"
    assert read.manifest["provenance"]["activation_bits"] == 8
    assert torch.equal(read("lm_head"), expected[0])


def test_float64_rounds_as_float32_but_for_its_own_rounding(tmp_path: Path) -> None:
    model = to_float64(tiny_model())
    point = "model.layers.0.linear_attn.in_proj_qkv"
    with float64_arithmetic(), rounded_activations(model, 8):
        double = captured(model, tmp_path / "double")(point)
    model = tiny_model()
    with rounded_activations(model, 8):
        single = captured(model, tmp_path / "single")(point)
    assert double.dtype == torch.float64
    # A few codes lie so near to a half that they differ; none is off by more than one.
    relative = (double - single).norm() / double.norm()
    assert relative < 1e-3


def test_half_precision_and_other_widths_are_refused(model: Qwen3_5ForCausalLM) -> None:
    with pytest.raises(LayerdiffError, match="4 bits"), rounded_activations(model, 4):
        pass
    with (
        pytest.raises(LayerdiffError, match=r"torch\.bfloat16 cannot hold"),
        rounded_activations(model.bfloat16(), 8),
    ):
        pass
