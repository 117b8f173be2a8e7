"""A release whose parts are tasks on Ray is the release of one machine, whoever is killed."""

import collections
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from layerdiff_hooks.cli import main
from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.job import Job, PartFailed, digest
from layerdiff_hooks.parts import Parts
from layerdiff_hooks.tasks import AGAIN, Tasks

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_layerdiff.py")
REAL = os.environ.get("LAYERDIFF_BINARY") or shutil.which("layerdiff")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path: Path, log: Path) -> Iterator[Start]:
    """Start the command in a session of its own, as a shell would."""
    program = tmp_path / "layerdiff"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    program.chmod(0o755)
    begun: list[subprocess.Popen[str]] = []

    def begin(
        *arguments: str, chunk: int = 1, retries: int = 3, **variables: str
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "layerdiff_hooks", "release", "--parts", "parts"]
        command += ["--binary", str(program), "--cpus", "2", "--chunk", str(chunk)]
        command += ["--retries", str(retries), "--", "--out", "report", *arguments]
        pipe = subprocess.PIPE
        begun.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "FAKE_LOG": str(log), **variables},
                stdout=pipe,
                stderr=pipe,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield begin
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, talk = process.communicate(timeout=100)
    return process.returncode, said + talk


def wait_for(there: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def rows(folder: Path) -> list[tuple[str, str]]:
    """Engine and name of every row of tokens."""
    query = f"SELECT engine, id FROM '{folder}/parts/tokens/*/*.parquet' ORDER BY ALL"
    return duckdb.sql(query).fetchall()


def asked(log: Path) -> collections.Counter[str]:
    return collections.Counter(
        file.name.split("@")[0] for file in log.iterdir() if "@" in file.name
    )


def worker(parent: int, name: str) -> int | None:
    """The process of Ray that runs a task of this name."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == parent:
                title = (entry / "cmdline").read_bytes().decode(errors="replace")
                if title.startswith(f"ray::{name}"):
                    return int(entry.name)
        except (ProcessLookupError, FileNotFoundError):
            continue
    return None


EVERY = [(f"lattice-{e}", name) for e in "ab" for name in ["p0", "p1", "p2", "p3", "question-0001"]]


def test_a_killed_worker_loses_and_doubles_nothing(start: Start, tmp_path: Path, log: Path) -> None:
    assert finish(start())[0] == 1, "the exit code of the release"
    undisturbed = (tmp_path / "report").read_bytes()
    assert rows(tmp_path) == EVERY
    # Again: nothing but the plan and the report is made.
    before = asked(log)
    assert finish(start(chunk=3))[0] == 1
    new = asked(log) - before
    assert set(new) == {"plan+", "release+"}, new
    assert (tmp_path / "report").read_bytes() == undisturbed

    shutil.rmtree(tmp_path / "parts")
    (tmp_path / "report").unlink()
    (log / "slow").write_text("p2")
    running = start()
    wait_for(lambda: worker(running.pid, "tokens") and "tokens+lattice-a+p2" in asked(log) - before)
    killed = worker(running.pid, "tokens")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    code, talk = finish(running)
    assert code == 1, talk
    assert (tmp_path / "report").read_bytes() == undisturbed
    assert rows(tmp_path) == EVERY


def test_a_killed_driver_goes_on_where_it_was(start: Start, tmp_path: Path, log: Path) -> None:
    (log / "slow").write_text("p3")
    running = start()
    wait_for(lambda: (tmp_path / "parts/tokens/lattice-a/p0.parquet").exists())
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    kept = {name for engine, name in rows(tmp_path) if engine == "lattice-a"}
    before = asked(log)
    (log / "slow").unlink()
    # A part that is cut off is made anew.
    cut = tmp_path / "parts/tokens/lattice-a/p0.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    # What it was writing, where it was killed while it wrote.
    cut.with_name(".p1.parquet.0123abcd.partial").write_bytes(b"half")
    assert finish(start())[0] == 1
    new = asked(log) - before
    assert new["tokens+lattice-a+p0"] == 1
    assert not any(new[f"tokens+lattice-a+{name}"] for name in kept - {"p0"})
    assert rows(tmp_path) == EVERY
    assert not list((tmp_path / "parts").rglob("*.partial"))
    for other in (start("--marker", "other"), start(RAYON_NUM_THREADS="7")):
        code, talk = finish(other)
        assert code == 2 and "parts of another release" in talk, talk


def test_a_part_that_fails_is_tried_again_and_then_is_the_engines_error(
    start: Start, tmp_path: Path, log: Path
) -> None:
    (log / "broken").write_text("p0")
    (log / "always").touch()
    (log / "blind").write_text("lattice-a")
    code, talk = finish(start(retries=2, chunk=4))
    assert code == 1, talk
    made = asked(log)
    assert (made["tokens+lattice-a+p0+p1+p2+p3"], made["tokens+lattice-b+p0+p1+p2+p3"]) == (2, 3)
    report = (tmp_path / "report").read_text()
    assert "== lattice-b.tokens.error\nit broke\n  hint: mend it\n" in report
    assert "== lattice-a.tokens.error\nnothing is seen\n  hint: look again\n" in report
    assert made["worst+lattice-a"] == 3 and "worst.json" not in report
    assert "== lattice-a.layers.json" in report and "== lattice-b.layers.json" in report


def test_the_first_chunk_that_fails_gives_the_engines_error_and_other_errors_are_told_whole() -> (
    None
):
    tasks = Tasks.__new__(Tasks)
    tasks._errors = {}

    def failed(kind: str, place: int, cause: Exception) -> None:
        tasks._failed(kind, "e", place, ray.exceptions.RayTaskError("f", "trace", cause))

    failed("tokens", 5, PartFailed("tokens", "of the second chunk"))
    failed("tokens", 2, PartFailed("tokens", "of the first chunk"))
    failed("layers", 9, PartFailed("layers", "of the layers"))
    failed("tokens", 7, PartFailed("tokens", "of the third chunk"))
    assert tasks._errors == {
        ("tokens", "e"): (2, "of the first chunk"),
        ("layers", "e"): (9, "of the layers"),
    }
    full = OSError(28, "No space left on device")
    inner = ray.exceptions.RayTaskError("g", "trace", PartFailed("reference", "no\n  hint: yes"))
    for cause, message, hint in (
        (LayerdiffError("gone", "bring it back"), "worst of e: gone", "bring it back"),
        (full, "worst of e: OSError: [Errno 28] No space left on device", AGAIN),
        (ValueError("\x1b[36mblue\x1b[39m\nmore"), "worst of e: ValueError: blue", AGAIN),
        (inner, "part reference: no", "yes"),
    ):
        with pytest.raises(LayerdiffError) as raised:
            failed("worst", 1, cause)
        assert (raised.value.message, raised.value.hint) == (message, hint)
    with pytest.raises(LayerdiffError, match="WorkerCrashedError"):
        tasks._failed("worst", "e", 1, ray.exceptions.WorkerCrashedError())


def test_another_program_at_the_same_path_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "layerdiff"
    program.write_text("#!/bin/sh\necho 1\n")
    program.chmod(0o755)
    job = Job(str(program), (), str(tmp_path), {}, "", "", digest(str(program)) or "")
    assert job.run("plan") == 1
    program.write_text("#!/bin/sh\necho 12\n")
    with pytest.raises(LayerdiffError, match="is not the program that was started"):
        job.run("plan")
    program.unlink()
    with pytest.raises(LayerdiffError, match="sha256 of nothing"):
        job.run("plan")


def test_a_cluster_that_is_not_there_is_an_error_with_a_hint(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_LOG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = ["release", "--parts", "parts", "--binary", str(tmp_path / "layerdiff")]
    for address in ("auto", "nowhere"):
        assert main([*command, "--address", address, "--", "--out", "report"]) == 2
        said = capsys.readouterr().err
        assert f"error: cannot reach Ray at {address}: " in said and "\nhint: " in said, said


def test_the_examples_in_sql_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_layerdiff import ENGINES, PROMPTS, QUESTIONS, _row

    from layerdiff_hooks.parts import token_row

    store = Parts(str(tmp_path / "parts"), "job")
    categories = {p["id"]: p["category"] for p in PROMPTS}
    for engine in ENGINES:
        for name in [*categories, *QUESTIONS]:
            store.write(
                "tokens", engine, name, [token_row(_row(engine, name), categories.get(name))]
            )
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "hooks" / "examples" / "release.sql").read_text()
    queries = [query for query in text.split(";") if "SELECT" in query]
    worst, parts, greedy, by_position = (duckdb.sql(query).fetchall() for query in queries)
    assert [row[0] for row in worst] == sorted(ENGINES * 4)
    for engine in ENGINES:
        figures = [row[4] for row in worst if row[0] == engine]
        assert figures == sorted(figures, reverse=True)
    assert sum(row[2] for row in parts) == sum(row[3] is not None for row in worst)
    assert [row[:2] for row in greedy] == [(e, c) for e in ENGINES for c in ("code", "prose")]
    assert all(2 / 3 <= row[2] <= 1 for row in greedy)
    assert [row[:2] for row in by_position] == [(e, k) for e in ENGINES for k in range(3)]


def test_what_is_no_part_of_this_job_is_not_taken(tmp_path: Path) -> None:
    mine, other = Parts(str(tmp_path), "mine"), Parts(tmp_path.as_uri(), "other")
    row = {"engine": "e", "outcome": "pass", "headline": "fine", "json": '{"a": 1e-07}'}
    mine.claim()
    mine.write("layers", "e", "all", [row])
    mine.write("layers", "e", "all", [row])
    assert mine.rows("layers", "e", "all") == ['{"a": 1e-07}']
    assert other.rows("layers", "e", "all") is None
    with pytest.raises(LayerdiffError, match="parts of another release"):
        other.claim()
    foreign = tmp_path / "layers" / "f" / "all.parquet"
    foreign.parent.mkdir()
    pq.write_table(pa.table({"json": ["{}"]}), foreign)
    assert mine.rows("layers", "f", "all") is None
    with pytest.raises(LayerdiffError, match="name a directory or an URI"):
        Parts("nowhere://a", "mine")


@pytest.mark.skipif(REAL is None, reason="no layerdiff: set LAYERDIFF_BINARY")
def test_the_real_release_is_that_of_one_machine_byte_for_byte(tmp_path: Path) -> None:
    assert REAL is not None
    # What takes long is PyTorch's start, so one engine on short prompts; both part at once from
    # the reference, and the one that is looked into is found from the rows of two chunks.
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"id": name, "token_ids": ids} for name, ids in (("a", [5, 17]), ("b", [45, 99]))]
    prompts.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    arguments = ["--engine", "lattice-f16", "--fault", "gate-silu", "--prompts", str(prompts)]
    arguments += ["--tokens", "2", "--steps", "0", "--worst", "1"]
    arguments += ["--choices", "none", "--out", "report"]
    environment = {**os.environ, "LAYERDIFF_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    one, many = tmp_path / "one", tmp_path / "many"
    command = [sys.executable, "-m", "layerdiff_hooks", "release", "--parts", "parts"]
    command += ["--binary", REAL, "--cpus", "2", "--chunk", "1", "--", *arguments]
    codes = []
    for folder, line in ((one, [REAL, "release", *arguments]), (many, command)):
        folder.mkdir()
        done = subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
        )
        said, talk = done.stdout, done.stderr
        assert not any(line.startswith("error:") for line in talk.splitlines()), talk
        codes.append((done.returncode, said))
    assert codes[0] == codes[1]
    files = [
        sorted(
            str(file.relative_to(folder))
            for file in (folder / "report").rglob("*")
            if file.is_file()
        )
        for folder in (one, many)
    ]
    assert files[0] == files[1] and len(files[0]) > 20
    equal, *_ = filecmp.cmpfiles(one, many, files[0], shallow=False)
    assert equal == files[0]
    assert rows(many) == [("lattice-f16", "a"), ("lattice-f16", "b")]
    assert list((many / "parts/worst/lattice-f16").iterdir())
    report = json.loads((many / "report/lattice-f16/tokens/report.json").read_text())
    assert [worst["layers"]["outcome"] for worst in report["worst"]] == ["fault"]
