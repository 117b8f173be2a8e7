"""The layout of a Qwen3.5 checkpoint folder, shared by the scripts that write one.

``config.json`` is nested and the tensors are named ``model.language_model.*``, as in the
checkpoints that Qwen publishes, but without a vision tower.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

# What transformers adds to every configuration and what says nothing about the model.
GENERIC_KEYS = frozenset(
    {
        "_name_or_path",
        "architectures",
        "chunk_size_feed_forward",
        "id2label",
        "is_encoder_decoder",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "transformers_version",
        "use_cache",
    }
)


def text_config(**values: Any) -> Qwen3_5TextConfig:
    """A text configuration with what the whole family has in common, and ``values``.

    ``partial_rotary_factor`` and ``mrope_section`` go into ``rope_parameters``.
    """
    rope = {
        "rope_type": "default",
        "rope_theta": 10_000_000.0,
        "partial_rotary_factor": values.pop("partial_rotary_factor", 0.25),
        "mrope_section": values.pop("mrope_section"),
        "mrope_interleaved": True,
    }
    common = {"linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
    return Qwen3_5TextConfig(**(common | values), rope_parameters=rope)


def checkpoint_config(config: Qwen3_5TextConfig) -> dict[str, Any]:
    """``config.json`` of a Qwen3_5ForConditionalGeneration checkpoint around ``config``."""
    text = {
        key: value
        for key, value in sorted(config.to_dict().items())
        if key not in GENERIC_KEYS and value is not None
    }
    text.update(dtype="bfloat16", full_attention_interval=4)
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "dtype": "bfloat16",
        "eos_token_id": config.eos_token_id,
        "model_type": "qwen3_5",
        "text_config": dict(sorted(text.items())),
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def checkpoint_name(name: str) -> str:
    """The name in the file of a parameter of Qwen3_5ForCausalLM."""
    return name.replace("model.", "model.language_model.", 1)


def checkpoint_shapes(config: Qwen3_5TextConfig) -> dict[str, torch.Size]:
    """Name and shape of every tensor of the checkpoint, in the model's order."""
    with torch.device("meta"):
        model = Qwen3_5ForCausalLM(config)
    return {
        checkpoint_name(name): tensor.shape
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
    }


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write ``value`` as UTF-8 JSON, ended by a newline."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file whose bytes depend on the tensors only; rename it when whole."""
    partial = path.with_name(path.name + ".partial")
    # One metadata key: several would come out in a random order.
    save_file(dict(sorted(tensors.items())), partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(path)
