"""Token metrics by numpy and scipy alone, to check the Rust side against.

    python hooks/scripts/token_metrics.py distributions REFERENCE CANDIDATE
    python hooks/scripts/token_metrics.py statistics REPORT ANSWERS
    python hooks/scripts/token_metrics.py table 60

The first takes two directories that hold one trace for each prompt, with the point `lm_head`, and
prints for each prompt a list over the positions of the KL divergence in nats and the total
variation. The second takes a `report.json` and the directory of the candidate's dumps, and prints
the Wilson interval of each share in the report, by its place, and what the answers to the
questions come to. The third prints both statistics for all counts up to a number.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.stats import binomtest


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


def distributions(reference: Path, candidate: Path) -> dict[str, Any]:
    """Compare all prompts."""
    found = {}
    for trace in sorted(p for p in reference.iterdir() if p.is_dir()):
        metrics = []
        for a, b in zip(logits(trace), logits(candidate / trace.name), strict=True):
            p, q = log_softmax(a), log_softmax(b)
            kl = float(np.sum(np.exp(p) * (p - q)))
            metrics.append({"kl": kl, "tv": float(0.5 * np.abs(np.exp(p) - np.exp(q)).sum())})
        found[trace.name] = metrics
    return found


def shares(value: Any, place: str = "") -> Iterator[tuple[str, int, int]]:
    """Each share in a report: its JSON pointer, how many succeeded, and of how many."""
    if isinstance(value, dict) and {"of", "count", "low", "high"} <= value.keys():
        yield place, value["of"], value["count"]
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from shares(inner, f"{place}/{key}")


def statistics(report: Path, answers: Path) -> dict[str, Any]:
    """Wilson's intervals of the shares, and McNemar's exact test of the answers."""
    document = json.loads(report.read_text(encoding="utf-8"))
    intervals = {}
    for place, of, count in shares(document):
        if count > 0:
            ends = binomtest(of, count).proportion_ci(0.95, method="wilson")
            intervals[place] = [float(ends.low), float(ends.high)]
    read = [json.loads(file.read_text(encoding="utf-8")) for file in answers.glob("*.answer.json")]
    right = np.array([answer["answer"] for answer in read])
    chosen = {
        side: np.array([np.argmax(answer[side]) for answer in read])
        for side in ("reference", "candidate")
    }
    before, after = (chosen[side] == right for side in ("reference", "candidate"))
    lost, won = int(np.sum(before & ~after)), int(np.sum(~before & after))
    return {
        "shares": intervals,
        "choices": {
            "lost": lost,
            "won": won,
            "changed": int(np.sum(chosen["reference"] != chosen["candidate"])),
            "p_value": float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
        },
    }


def table(most: int) -> dict[str, Any]:
    """Wilson's interval of `a` in `b`, and McNemar's test of `a` changes against `b`."""
    pairs = [(a, b) for b in range(1, most + 1) for a in range(b + 1)]
    ends = [binomtest(a, b).proportion_ci(0.95, method="wilson") for a, b in pairs]
    return {
        "pairs": pairs,
        "wilson": [[float(end.low), float(end.high)] for end in ends],
        "mcnemar": [float(binomtest(a, a + b).pvalue) for a, b in pairs],
    }


if __name__ == "__main__":
    if sys.argv[1] == "table":
        print(json.dumps(table(int(sys.argv[2]))))
        sys.exit()
    compute = {"distributions": distributions, "statistics": statistics}[sys.argv[1]]
    print(json.dumps(compute(Path(sys.argv[2]), Path(sys.argv[3]))))
