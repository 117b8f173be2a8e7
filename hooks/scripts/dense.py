"""Write a synthetic dense decoder of the real layout, with seeded random weights.

    python hooks/scripts/dense.py --family llama OUT     grouped-query attention, untied head
    python hooks/scripts/dense.py --family qwen3 OUT     with norms of queries and keys, tied
    python hooks/scripts/dense.py --family llama --rope llama3 OUT    as from Llama 3.1 on

Sizes are small and odd: head sizes that are no power of two, three query heads to a key head. With
``--tokenizer DIR`` that checkpoint's tokenizer is copied, and its vocabulary is taken.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers

SIZES = {
    "vocab_size": 307,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
# Of a short context, so that few positions see all three bands of frequencies.
SCALINGS = {
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
}
FAMILIES = {"llama": ("Llama", False), "qwen3": ("Qwen3", True)}


def write(
    out: Path, family: str, seed: int = 0, tokenizer: Path | None = None, rope: str = "default"
) -> None:
    """Write a checkpoint of the family to `out`, which must not exist."""
    name, tied = FAMILIES[family]
    sizes = dict(SIZES)
    sizes["rope_parameters"] = {"rope_type": rope, "rope_theta": 500000.0, **SCALINGS[rope]}
    if tokenizer is not None:
        text = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
        added = [token["id"] + 1 for token in text.get("added_tokens", [])]
        sizes["vocab_size"] = max([len(text["model"]["vocab"]), *added])
    config = getattr(transformers, f"{name}Config")(**sizes, tie_word_embeddings=tied)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            drawn = torch.randn(weight.shape, generator=random)
            # Gains around 1; rows whose products keep the size of what they read.
            is_gain = weight.ndim == 1
            weight.copy_(1 + 0.2 * drawn if is_gain else drawn / weight.shape[-1] ** 0.5)
    model.to(torch.bfloat16).save_pretrained(out)
    if tokenizer is not None:
        shutil.copy(tokenizer / "tokenizer.json", out)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", choices=sorted(FAMILIES), required=True)
    parser.add_argument("--rope", choices=sorted(SCALINGS), default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} already exists")
    write(options.out, options.family, options.seed, options.tokenizer, options.rope)


if __name__ == "__main__":
    main()
