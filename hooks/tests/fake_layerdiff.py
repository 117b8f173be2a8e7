"""Speaks as `layerdiff release` does to who makes its parts, with numbers made of the names.

What it was asked for is left as files in $FAKE_LOG; there `slow` and `broken` say which prompt
takes long, and which fails the first time.
"""

import itertools
import json
import os
import secrets
import sys
import time
import zlib
from pathlib import Path

ENGINES = ["lattice-a", "lattice-b"]
PROMPTS = [{"id": f"p{n}", "category": ["code", "prose"][n % 2]} for n in range(4)]
QUESTIONS = ["question-0001"]


def main() -> None:
    arguments = sys.argv[2:]
    named = {a: b for a, b in itertools.pairwise(arguments) if a.startswith("--")}
    only = [b for a, b in itertools.pairwise(arguments) if a == "--only"]
    part, engine = named.get("--part", "release"), named.get("--engine", "")
    log = Path(os.environ["FAKE_LOG"])
    said = "+".join([part, engine, *only])
    (log / f"{said}@{secrets.token_hex(4)}").touch()
    if part == "plan":
        plan = {"engines": ENGINES, "prompts": PROMPTS, "questions": QUESTIONS}
        job = {"marker": named.get("--marker")}
        print(json.dumps({**plan, "python": sys.executable, "job": job}))
    elif part == "reference":
        dumps = Path(named["--dumps"])
        dumps.mkdir()
        (dumps / "ids").write_text(json.dumps(only))
        print("{}")
    elif part == "tokens":
        have = json.loads((Path(named["--dumps"]) / "ids").read_text())
        assert set(only) <= set(have)
        _hinder(log, engine, only)
        print(json.dumps([_row(engine, name) for name in only]))
    elif part == "layers":
        fault = {"point": "lm_head"}
        report = {"outcome": "fault", "verdict": {"headline": engine}, "first_fault": fault}
        print(json.dumps({"engine": engine, "result": report}))
    elif part == "worst":
        rows = (Path(named["--parts"]) / f"{engine}.tokens.jsonl").read_text().splitlines()
        if (log / "blind").exists() and (log / "blind").read_text() == engine:
            print("error: nothing is seen\n  hint: look again", file=sys.stderr)
            sys.exit(2)
        prompt = {"id": "p1", "layers": {"outcome": "pass"}, "of": len(rows)}
        print(json.dumps([{"engine": engine, "result": prompt}]))
    else:
        files = sorted(Path(named["--parts"]).iterdir())
        text = "".join(f"== {file.name}\n{file.read_text()}\n" for file in files)
        Path(named["--out"]).write_text(text)
        sys.exit(1)


def _hinder(log: Path, engine: str, only: list[str]) -> None:
    if (log / "broken").exists() and (name := (log / "broken").read_text()) in only:
        first = len(list(log.glob(f"tokens+{engine}+*{name}*"))) == 1
        if first or ((log / "always").exists() and engine == ENGINES[1]):
            print("error: it broke\n  hint: mend it", file=sys.stderr)
            sys.exit(2)
    if (log / "slow").exists() and (log / "slow").read_text() in only:
        time.sleep(4)


def _row(engine: str, name: str) -> dict[str, object]:
    number = zlib.crc32(f"{engine}/{name}".encode())
    row = {"engine": engine, "id": name, "reference": {}, "candidate": {}}
    if name in QUESTIONS:
        answers = {"reference": [-1.0, -2.0, -3.0, "-inf"], "candidate": [-3.0, -2.0, -1.0, -9.0]}
        return {**row, "kind": "question", "result": {"subject": "sea", "answer": 0, **answers}}
    greedy = {
        "reference": [1, 2, 3],
        "candidate": [1, number % 7, 3],
        "divergence": None if number % 7 == 2 else {"position": 1},
    }
    positions = [{"kl": number / 3.0**k, "top1": number % (k + 2) == 0} for k in range(3)]
    return {**row, "kind": "prompt", "result": {"greedy": greedy, "positions": positions}}


if __name__ == "__main__":
    main()
