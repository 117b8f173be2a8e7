"""A tiny random model of every kind of layer, and a reader that checks the trace format."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

import layerdiff_hooks
from layerdiff_hooks.calls import with_cache

# Tiny tensors gain nothing from threads, and lose much on a busy machine.
torch.set_num_threads(1)

PROMPT = torch.randint(0, 61, (1, 70), generator=torch.Generator().manual_seed(7))


def tiny_model(attention: str = "eager") -> Qwen3_5ForCausalLM:
    """Three GatedDeltaNet layers and one of grouped attention; two value heads a key head."""
    torch.manual_seed(5)
    config = Qwen3_5TextConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=12,
        linear_conv_kernel_dim=4,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000_000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
        },
    )
    model = Qwen3_5ForCausalLM(config).eval()
    with torch.no_grad():
        # Larger than at initialisation, so that every term of every formula counts.
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.set_attn_implementation(attention)
    return model


def captured(
    model: Qwen3_5ForCausalLM, out: Path, ids: Tensor = PROMPT, steps: int = 0, **options: Any
) -> "Read":
    """Trace a prompt and `steps` cached tokens after it, and read the trace."""
    with torch.no_grad(), layerdiff_hooks.trace(model, out, **options):
        output = model(ids)
        for step in range(steps):
            output = model(torch.tensor([[step + 3]]), **with_cache(model, output.past_key_values))
    return Read(out)


class Read:
    """A trace in memory. Every sentence of the format that is about files is asserted."""

    def __init__(self, path: Path) -> None:
        """Read all of it."""
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        self.manifest: dict[str, Any] = manifest
        assert manifest["format"] == "layerdiff-trace"
        assert manifest["version"] == 1
        files = [shard["file"] for shard in manifest["shards"]]
        assert sorted(p.name for p in path.iterdir()) == sorted([*files, "manifest.json"])
        stored: list[dict[str, Tensor]] = []
        dtypes: dict[str, str] = {}
        for shard in manifest["shards"]:
            file = path / shard["file"]
            assert file.stat().st_size == shard["bytes"]
            stored.append(load_file(file))
            assert stored[-1], "a shard without a tensor"
            with safe_open(file, framework="pt") as opened:
                dtypes |= {key: opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118
        self.order: list[tuple[str, int, str]] = []
        self.tensors: dict[tuple[int, str], Tensor] = {}
        self.entries: dict[tuple[int, str], dict[str, Any]] = {}
        for number, entry in enumerate(manifest["tensors"]):
            assert entry["order"] == number
            name = f"{entry['prompt']}/{entry['step']}/{entry['point']}"
            tensor = stored[entry["shard"]].pop(name)
            assert list(tensor.shape) == entry["shape"]
            assert dtypes[name] == entry["dtype"]
            assert entry["basis"] == "original"
            self.order.append((entry["prompt"], entry["step"], entry["point"]))
            self.tensors[entry["step"], entry["point"]] = tensor
            self.entries[entry["step"], entry["point"]] = entry
        assert not any(stored), "a tensor without an entry"
        assert len(set(self.order)) == len(self.order)

    def __call__(self, point: str, step: int = 0) -> Tensor:
        """The tensor of a point, in the precision of the trace."""
        return self.tensors[step, point]

    def wide(self, point: str, step: int = 0) -> Tensor:
        """The tensor of a point in float64."""
        return self.tensors[step, point].double()

    def points(self, step: int = 0) -> list[str]:
        """The points of a step in the order of execution."""
        return [point for _, s, point in self.order if s == step]
