"""A process that stays for more commands: each finds what a process of its own would."""

import json
import os
import subprocess
import sys
from pathlib import Path

from support import Read

MODEL = Path(__file__).parents[2] / "src/bundle/model"


def arguments(model: Path, out: Path) -> list[str]:
    prompts = out.with_name("prompts.jsonl")
    prompts.write_text(json.dumps({"id": "a", "token_ids": [1, 2, 3]}) + "\n", encoding="utf-8")
    common = ["--model", str(model), "--prompts", str(prompts), "--steps", "1"]
    return ["capture", *common, "--out", str(out)]


def test_each_command_leaves_what_it_leaves_alone_and_a_failure_ends_no_other(
    tmp_path: Path,
) -> None:
    commands = [arguments(MODEL, tmp_path / name) for name in ("first", "second", "third")]
    commands[2] += ["--dtype", "float64"]
    missing = arguments(tmp_path / "nowhere", tmp_path / "fourth")
    more = "".join(json.dumps(command) + "\n" for command in (commands[1], missing, commands[2]))
    process = [sys.executable, "-m", "layerdiff_hooks"]
    stays = subprocess.run(
        [*process, *commands[0]],
        input=more,
        env=os.environ | {"LAYERDIFF_STAY": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    ended = [line for line in stays.stderr.splitlines() if line.startswith('{"ended"')]
    assert ended == ['{"ended": 0}', '{"ended": 0}', '{"ended": 2}', '{"ended": 0}']
    assert "error: " in stays.stderr
    assert not (tmp_path / "fourth").exists()
    alone = arguments(MODEL, tmp_path / "alone")
    subprocess.run([*process, *alone], check=True, capture_output=True)
    wanted = Read(tmp_path / "alone").tensors
    for name in ("first", "second"):
        found = Read(tmp_path / name).tensors
        assert found.keys() == wanted.keys()
        assert all(found[key].equal(tensor) for key, tensor in wanted.items())
    assert Read(tmp_path / "third").tensors[(0, "lm_head")].dtype != wanted[(0, "lm_head")].dtype
