"""The metrics of a comparison as vectorized numpy: what `compare.rs` beside this is held against.

Prints as JSON the seconds that all tensors took, for which files are read before, and the metrics
of the first.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def metrics(r: np.ndarray, c: np.ndarray, quantiles: bool) -> dict[str, object]:
    """Every figure of a report, by numpy's own loops in f64."""
    r, c = r.astype(np.float64), c.astype(np.float64)
    d = c - r
    size = np.abs(d)
    rr, cc, dd = (r * r).sum(), (c * c).sum(), (d * d).sum()
    found = {
        "rel_l2": np.sqrt(dd / rr),
        "cosine": (r * c).sum() / np.sqrt(rr * cc),
        "norm_ratio": np.sqrt(cc / rr),
        "max_abs": size.max(),
        "max_abs_at": np.unravel_index(size.argmax(), size.shape),
        "non_finite": int((~np.isfinite(d)).sum()),
        "per_token": np.sqrt((d * d).sum(-1) / (r * r).sum(-1)),
    }
    if quantiles:
        found["quantiles"] = np.quantile(size, [0.5, 0.9, 0.99, 0.999], method="inverted_cdf")
    return found


def main() -> None:
    """Compare the shards of two traces."""
    reference, candidate, quantiles = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "true"
    shards = [
        shard["file"] for shard in json.loads((reference / "manifest.json").read_text())["shards"]
    ]
    seconds, found = 0.0, {}
    for shard in shards:
        r, c = load_file(reference / shard), load_file(candidate / shard)
        start = time.perf_counter()
        for name in r:
            found[name] = metrics(r[name], c[name], quantiles)
        seconds += time.perf_counter() - start
    first = {key: np.asarray(value).tolist() for key, value in found["p/0/tensor.0"].items()}
    print(json.dumps({"seconds": seconds, "first": first}))


if __name__ == "__main__":
    main()
