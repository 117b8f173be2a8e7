"""The basis that a trace of a rotated checkpoint states."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import PROMPT
from transformers import Qwen3_5ForCausalLM

from layerdiff_hooks import LayerdiffError, trace
from layerdiff_hooks.architecture import load_architecture
from layerdiff_hooks.rotation import rotated_basis


@pytest.mark.parametrize(
    "config",
    [
        {"quarot_rotation_seed": 7},
        {"quarot_rotation_seed": 7, "text_config": {}},
        {"text_config": {"quarot_rotation_seed": 7}},
        {"quarot_rotation_seed": 8, "text_config": {"quarot_rotation_seed": 7}},
    ],
)
def test_the_seed_stands_at_top_level_or_in_the_text_section(config: dict[str, Any]) -> None:
    assert rotated_basis(config, load_architecture("qwen3_5")) == "quarot:7"


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, 2**64])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(LayerdiffError, match="bad quarot_rotation_seed"):
        rotated_basis({"quarot_rotation_seed": seed}, load_architecture("qwen3_5"))


@pytest.mark.parametrize(("seed", "rotated"), [(None, "original"), (12648430, "quarot:12648430")])
def test_the_points_that_the_rotation_touches_are_in_its_basis(
    tmp_path: Path, model: Qwen3_5ForCausalLM, seed: int | None, rotated: str
) -> None:
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    config = {**model.config.to_dict(), "quarot_rotation_seed": seed}
    (checkpoint / "config.json").write_text(json.dumps(config, default=str))
    with torch.no_grad(), trace(model, tmp_path / "t", model_dir=checkpoint):
        model(PROMPT[:, :3])
    manifest = json.loads((tmp_path / "t" / "manifest.json").read_text())
    stated = {entry["point"]: entry["basis"] for entry in manifest["tensors"]}
    described = {p.name: p.basis for p in load_architecture("qwen3_5_text").points(config)}
    assert len(stated) == len(described)
    for point, basis in stated.items():
        assert basis == (rotated if described[point] != "original" else "original"), point
    assert stated["model.layers.0"] == rotated
    assert stated["model.layers.0.mlp.up_proj"] == "original"
