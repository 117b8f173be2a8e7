"""Of long contexts some rows of attention's scores are kept, the same on both sides."""

import json
from pathlib import Path

import pytest
import torch
from support import PROMPT, Read, captured
from transformers import Qwen3_5ForCausalLM

from layerdiff_hooks import LayerdiffError, trace
from layerdiff_hooks.architecture import load_architecture
from layerdiff_hooks.scores import has_rows, parse_scores, take_rows

CASES = json.loads((Path(__file__).parent / "scores.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['scores']}-{case['tokens']}")
def test_the_rows_of_both_sides_are_those_of_one_table(case: dict) -> None:
    assert parse_scores(case["scores"]).rows(case["tokens"], case["context"]) == case["rows"]


@pytest.mark.parametrize("text", ["", "rows", "rows:", "rows:1", "rows:-3", "rows:x", "heads:2"])
def test_other_choices_are_refused(text: str, tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    with pytest.raises(LayerdiffError, match="unknown choice of attention's rows"):
        trace(model, tmp_path / "trace", scores=text)


def test_every_point_with_rows_is_described_with_tokens_and_context_last() -> None:
    for model_type in ("qwen3_5_text", "llama", "qwen3"):
        for component in load_architecture(model_type).data["component"]:
            if has_rows(component["shape"]):
                assert component["shape"][-2:] == ["tokens", "context"]
                assert component["torch"].get("layout") in (None, "mask", "scores")


def test_kept_rows_are_those_of_the_whole_and_all_else_is_equal(
    tmp_path: Path, model: Qwen3_5ForCausalLM, single: Read
) -> None:
    part = captured(model, tmp_path / "trace", steps=2, scores="rows:8")
    rows = parse_scores("rows:8").rows(70, 70)
    seen = set()
    for (step, point), tensor in part.tensors.items():
        entry, whole = part.entries[step, point], single.tensors[step, point]
        if "rows" in entry:
            assert (step, entry["rows"]) == (0, rows)
            assert entry["shape"][-2:] == [8, 70]
            whole = whole[..., rows, :]
            seen.add(point.rsplit(".", 1)[1])
        assert torch.equal(tensor, whole), point
    assert seen == {"attention_mask", "scores", "probs"}
    assert "rows" not in json.dumps(single.manifest["tensors"])


def test_as_many_rows_as_tokens_are_all(tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    part = captured(model, tmp_path / "trace", scores=f"rows:{PROMPT.shape[1]}")
    assert not any("rows" in entry for entry in part.manifest["tensors"])


def test_a_value_without_a_row_for_each_token_is_refused() -> None:
    with pytest.raises(LayerdiffError, match="a row for each of 9 tokens"):
        take_rows(torch.zeros(1, 1, 8, 9), [0, 8], 9)
