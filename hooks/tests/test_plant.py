"""Planted faults change what they say, are gone afterwards, and are stated in the trace."""

from pathlib import Path

import pytest
import torch
from support import PROMPT, captured, tiny_model

from layerdiff_hooks import LayerdiffError
from layerdiff_hooks.plant import FAULTS, plant, planted

# Of full attention, as layers 0 to 2 are not.
LAYER = 3


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_planted_fault_changes_the_logits_and_is_gone_afterwards(fault: str) -> None:
    model = tiny_model()
    with torch.no_grad():
        before = model(PROMPT).logits
        with plant(model, fault, LAYER):
            faulty = model(PROMPT).logits
        after = model(PROMPT).logits
    assert not torch.equal(before, faulty)
    assert torch.equal(before, after)


def test_a_trace_says_what_is_planted(tmp_path: Path) -> None:
    model = tiny_model()
    with plant(model, "rope-backwards", LAYER), plant(model, "gelu-for-silu", 0):
        assert len(planted(model)) == 2
        read = captured(model, tmp_path / "faulty")
    expected = ["planted: rope-backwards in layer 3", "planted: gelu-for-silu in layer 0"]
    assert read.manifest["provenance"]["notes"] == expected
    assert planted(model) == ()
    assert "notes" not in captured(model, tmp_path / "healthy").manifest["provenance"]


def test_two_faults_of_one_module_are_both_undone() -> None:
    model = tiny_model()
    forward = model.model.layers[LAYER].self_attn.forward
    with plant(model, "rope-backwards", LAYER), plant(model, "mask-not-causal", LAYER):
        pass
    assert model.model.layers[LAYER].self_attn.forward == forward
    assert "forward" not in vars(model.model.layers[LAYER].self_attn)


@pytest.mark.parametrize(
    ("fault", "layer", "message"),
    [
        ("rope-interleavd", LAYER, "did you mean 'rope-interleaved'"),
        ("rope-interleaved", 4, "the model has 4 layers"),
        ("rope-interleaved", 0, "cannot live in layer 0"),
        ("scores-unscaled", 0, "cannot live in layer 0"),
    ],
)
def test_a_fault_that_cannot_be_planted_is_refused(fault: str, layer: int, message: str) -> None:
    with pytest.raises(LayerdiffError, match=message), plant(tiny_model(), fault, layer):
        pass
