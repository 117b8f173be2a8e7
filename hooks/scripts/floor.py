"""Keep of reports of an arm against the reference what a floor needs: one error for each point.

    python hooks/scripts/floor.py OUT REPORT...

The reports are of the same arm, one for each prompt.
"""

import json
import sys
from pathlib import Path


def main(out: str, *reports: str) -> None:
    """Write the reports' errors to `out`, a line for each."""
    read = [json.loads(Path(report).read_text(encoding="utf-8")) for report in reports]
    kept = ("engine", "dtype", "hashes", "activation_bits")
    sides = {
        name: {key: value for key, value in side.items() if key in kept}
        for name, side in read[0]["provenance"].items()
        if name in ("candidate", "reference")
    }
    head = {"engine": read[0]["engine"], "provenance": sides}
    head["prompts"] = [
        {"id": prompt["id"], "token_ids": prompt["token_ids"]}
        for report in read
        for prompt in report["prompts"]
    ]
    keys = ("point", "step", "prompt", "rel_l2")
    points = [{key: p[key] for key in keys} for report in read for p in report["points"]]
    # Three digits are enough for what is held against a margin of 16.
    for point in points:
        if isinstance(point["rel_l2"], float):
            point["rel_l2"] = float(f"{point['rel_l2']:.3g}")
    lines = ",\n".join(json.dumps(point, separators=(",", ":")) for point in points)
    text = json.dumps(head)[:-1] + ', "points": [\n' + lines + "\n]}\n"
    Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
