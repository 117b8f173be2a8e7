"""Token metrics of two directories of traces, by numpy alone, to check the Rust side against.

    python hooks/scripts/token_metrics.py REFERENCE CANDIDATE

Both hold one trace for each prompt, with the point `lm_head`. Prints, for each prompt, a list over
the positions of the KL divergence in nats and the total variation.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open


def logits(trace: Path) -> list[NDArray[np.float64]]:
    """Read the logits of the last token of each step."""
    manifest = json.loads((trace / "manifest.json").read_text(encoding="utf-8"))
    rows = {}
    for entry in manifest["tensors"]:
        if entry["point"] != "lm_head":
            continue
        shard = trace / manifest["shards"][entry["shard"]]["file"]
        key = f"{entry['prompt']}/{entry['step']}/{entry['point']}"
        with safe_open(shard, framework="np") as tensors:
            rows[entry["step"]] = tensors.get_tensor(key)[-1].astype(np.float32).astype(np.float64)
    return [rows[step] for step in sorted(rows)]


def log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the probabilities."""
    return x - np.logaddexp.reduce(x)


def main(reference: Path, candidate: Path) -> None:
    """Compare all prompts."""
    found = {}
    for trace in sorted(p for p in reference.iterdir() if p.is_dir()):
        metrics = []
        for a, b in zip(logits(trace), logits(candidate / trace.name), strict=False):
            p, q = log_softmax(a), log_softmax(b)
            kl = float(np.sum(np.exp(p) * (p - q)))
            metrics.append({"kl": kl, "tv": float(0.5 * np.abs(np.exp(p) - np.exp(q)).sum())})
        found[trace.name] = metrics
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
