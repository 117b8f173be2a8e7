"""Write synthetic Qwen3.5 checkpoints of the real layout, with seeded random weights.

    python hooks/scripts/synthetic.py --shape tiny OUT          4 small layers with odd sizes
    python hooks/scripts/synthetic.py --shape qwen3.5-0.8b OUT  the text shape of Qwen3.5-0.8B
    python hooks/scripts/synthetic.py --untie SRC OUT           SRC with a head of its own

Each tensor is drawn from a generator seeded by ``--seed`` and the tensor's name, so a weight
depends neither on the order of writing nor on the shard it lands in.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from layout import checkpoint_config, checkpoint_shapes, text_config, write_json, write_tensors
from safetensors.torch import load_file
from transformers import Qwen3_5TextConfig

SHAPES: dict[str, dict[str, Any]] = {
    # Twice as many value heads as key heads, head sizes that are no power of two, and a
    # vocabulary that is no multiple of a vector width.
    "tiny": {
        "vocab_size": 307,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 24,
        "max_position_embeddings": 2048,
        "eos_token_id": 0,
    },
    "qwen3.5-0.8b": {
        "vocab_size": 248320,
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "mrope_section": [11, 11, 10],
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262144,
        "eos_token_id": 248044,
    },
}
SHARD_BYTES = 256 * 2**20
BLOCK = 2**24
HEAD_NOISE = 0.05


def generator(seed: int, name: str) -> torch.Generator:
    """The random generator that belongs to one tensor."""
    # The generator uses 32 bits of a seed: a product spreads ours over them, and 0 stays 0.
    mixed = (seed * 2654435761 & 0xFFFFFFFF) ^ zlib.crc32(name.encode())
    return torch.Generator().manual_seed(mixed)


def draw(name: str, shape: torch.Size, layers: int, rng: torch.Generator) -> torch.Tensor:
    """A bf16 tensor at the scale that the role of ``name`` asks for.

    Matrices keep the size of their input; those that write to the residual stream are smaller
    by sqrt(2 * layers), so that the stream does not grow with the depth. ``A_log`` and
    ``dt_bias`` give decays between forgetting at once and remembering thousands of tokens.
    """
    kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if kind == "A_log":
        return torch.empty(shape).uniform_(1.0, 16.0, generator=rng).log().bfloat16()
    if kind == "dt_bias":
        low, high = math.log(1e-3), math.log(1e-1)
        step = torch.empty(shape).uniform_(low, high, generator=rng).exp()
        return step.expm1().log().bfloat16()  # the inverse of softplus
    if len(shape) == 1:
        # The gated norm multiplies by its weight, all other norms by 1 + weight.
        center = 1.0 if name.endswith("linear_attn.norm.weight") else 0.0
        return (center + 0.1 * torch.randn(shape, generator=rng)).bfloat16()
    scale = 0.02 if kind in ("embed_tokens", "lm_head") else shape[1:].numel() ** -0.5
    if kind in ("o_proj", "out_proj", "down_proj"):
        scale /= math.sqrt(2 * layers)
    flat = torch.empty(shape.numel(), dtype=torch.bfloat16)
    for start in range(0, flat.numel(), BLOCK):
        block = flat[start : start + BLOCK]
        block.copy_(scale * torch.randn(block.shape, generator=rng))
    return flat.view(shape)


def shards(shapes: dict[str, torch.Size]) -> Iterator[list[str]]:
    """Group the names, in order, into shards of about SHARD_BYTES of bf16."""
    group: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if group and size + 2 * shape.numel() > SHARD_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += 2 * shape.numel()
    yield group


def byte_tokenizer() -> dict[str, Any]:
    """``tokenizer.json`` of a BPE without merges: the id of a token is the value of its byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + position) for position, byte in enumerate(others)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"use_regex": True},
        "post_processor": None,
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {characters[byte]: byte for byte in range(256)},
            "merges": [],
        },
    }


def synthesize(config: Qwen3_5TextConfig, out: Path, seed: int) -> None:
    """Write a checkpoint of random weights, holding one shard in memory at a time."""
    shapes = checkpoint_shapes(config)
    groups = list(shards(shapes))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        if len(groups) == 1:
            file = "model.safetensors"
        tensors = {
            name: draw(name, shapes[name], config.num_hidden_layers, generator(seed, name))
            for name in names
        }
        write_tensors(out / file, tensors)
        weight_map |= dict.fromkeys(names, file)
    if len(groups) > 1:
        size = sum(2 * shape.numel() for shape in shapes.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(out / "model.safetensors.index.json", index)
    write_json(out / "config.json", checkpoint_config(config))
    write_json(out / "tokenizer.json", byte_tokenizer(), indent=None)


def untie(source: Path, out: Path, seed: int) -> None:
    """Copy a tied checkpoint, with the embedding plus a little noise as ``lm_head.weight``."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(source / "model.safetensors")
    if "lm_head.weight" in tensors:
        raise SystemExit(f"{source}: lm_head.weight is there already")
    embedding = tensors["model.language_model.embed_tokens.weight"].float()
    noise = torch.randn(embedding.shape, generator=generator(seed, "lm_head.weight"))
    head = embedding + HEAD_NOISE * embedding.std() * noise
    tensors["lm_head.weight"] = head.bfloat16()
    for level in (config, config["text_config"]):
        level["tie_word_embeddings"] = False
    write_tensors(out / "model.safetensors", tensors)
    write_json(out / "config.json", config)
    shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")


def main() -> None:
    """Parse the command line and write one checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shape", choices=sorted(SHAPES), help="random weights of this shape")
    what.add_argument("--untie", type=Path, metavar="SRC", help="give SRC a head of its own")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must be empty")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        parser.error(f"{args.out} is not empty")
    if args.shape is None:
        untie(args.untie, args.out, args.seed)
    else:
        synthesize(text_config(**SHAPES[args.shape]), args.out, args.seed)


if __name__ == "__main__":
    main()
