"""How the whole of `layerdiff run` grows: time by stage, memory and disk, on synthetic models.

    python benches/scale.py --shape 0.8b      the shape of Qwen3.5-0.8B: 256 tokens, 8 decode steps
    python benches/scale.py --growth          tokens, layers, hidden size and prompts one by one
    python benches/scale.py --long            up to 8,191 tokens, with 64 rows of attention's scores
    python benches/scale.py --short           tiny sizes; a check that it measures

Prints tables in Markdown; `--json FILE` also writes all figures. Needs a release build and, as
hooks/scripts do, the Python of the checkout. Models and references are written to `--work`, and
used again where they are there already. Memory is read from /proc, so this is for Linux.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "hooks" / "scripts"))

ENGINES = ("lattice-f16", "lattice-q4")
# Of the models that grow: the shape of `tiny`, but with sizes that are whole multiples.
BASE = {"tokens": 64, "layers": 4, "hidden": 128, "prompts": 1}
GROWTH = {
    "tokens": (64, 128, 256, 512, 1024, 2048),
    "layers": (4, 8, 16, 32, 64, 128),
    "hidden": (64, 128, 256, 512, 1024, 2048),
    "prompts": (1, 4, 16, 64, 256),
}
# The longest that lattice takes.
LONG = {"tokens": (512, 1024, 2048, 4096, 8191)}
LONG_ROWS = "rows:64"
SHORT = {"tokens": (8, 16, 32), "layers": (4, 8), "hidden": (64, 128), "prompts": (1, 2)}
# Seconds between two looks at a running command; how many of them for one at the disk.
LOOK = 0.02
LOOKS_A_DISK = 5
# Stages that are a part of the capture before them.
WHILE = " while it ran"
STAGE = re.compile(r"^(?P<what>.*\S): (?P<seconds>\d+\.\d+) s$")


@dataclass
class Run:
    """What a command cost."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    # Bytes: everything in memory, and what of it is no mapped file.
    peak_resident: int = 0
    peak_anonymous: int = 0
    # None where a file was never seen: it may have come and gone between two looks.
    peak_disk: int | None = None
    stages: list[tuple[str, float]] = field(default_factory=list)

    def require_positive(self, but: str) -> None:
        """Refuse a figure that is not there, all `but` one."""
        for name, value in asdict(self).items():
            if not value and name != but:
                raise SystemExit(f"no figure for {name}: {self}")


def measured(command: Sequence[str], temporary: Path, ends: Iterable[int] = (0,)) -> Run:
    """Run a command to its end and watch it; its temporary files go to `temporary`."""
    temporary.mkdir(exist_ok=True)
    run = Run()
    with tempfile.TemporaryFile("w+") as talk:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=talk,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        over = threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, temporary, run, over))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        run.seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        over.set()
        watch.join()
        talk.seek(0)
        said = talk.read()
    if process.returncode not in ends:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{said}")
    run.cpu_seconds = usage.ru_utime + usage.ru_stime
    found = (STAGE.match(line) for line in said.splitlines())
    stages = [(_without_paths(m["what"]), float(m["seconds"])) for m in found if m]
    run.stages = _apart(stages)
    return run


def _apart(stages: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Take what was done while the engine ran out of the time of its capture."""
    inside = sum(seconds for what, seconds in stages if what.endswith(WHILE))
    out, left = [], inside
    for what, seconds in stages:
        own = seconds
        if what.startswith("capturing ") and left:
            own, left = seconds - left, 0.0
        out.append((what, own))
    return out


def _watch(pid: int, temporary: Path, run: Run, over: threading.Event) -> None:
    looks = 0
    while not over.wait(LOOK):
        status = Path(f"/proc/{pid}/status")
        try:
            lines = status.read_text(encoding="ascii").splitlines()
        except OSError:
            lines = []
        kilobytes = {
            key: int(rest.split()[0]) for key, rest in _fields(lines) if rest.endswith("kB")
        }
        run.peak_resident = max(run.peak_resident, 1024 * kilobytes.get("VmHWM", 0))
        run.peak_anonymous = max(run.peak_anonymous, 1024 * kilobytes.get("RssAnon", 0))
        if looks % LOOKS_A_DISK == 0:
            run.peak_disk = max(run.peak_disk or 0, _disk(temporary)) or None
        looks += 1


def _fields(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, rest = line.partition(":")
        yield key, rest.strip()


def _disk(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).lstat().st_blocks * 512
            except OSError:
                # It has just been removed.
                continue
    return total


def _without_paths(stage: str) -> str:
    return re.sub(r"\S*/\S+", "…", stage)


class Bench:
    """The program, and where models and traces are kept."""

    def __init__(self, binary: Path, python: str, work: Path) -> None:
        """Check that the program is there."""
        if not binary.is_file():
            raise SystemExit(
                f"{binary} is not there: cargo build --release, or name it with --binary"
            )
        self._binary = str(binary.resolve())
        self._python = python
        self.work = work

    def model(self, shape: dict[str, Any] | str) -> Path:
        """A synthetic checkpoint, written unless it is there."""
        from layout import text_config
        from synthetic import SHAPES, synthesize

        values = SHAPES[shape] if isinstance(shape, str) else shape
        name = (
            shape
            if isinstance(shape, str)
            else "{num_hidden_layers}x{hidden_size}x{max_position_embeddings}".format(**shape)
        )
        out = self.work / f"model-{name}"
        if not (out / "tokenizer.json").is_file():
            out.mkdir(exist_ok=True)
            synthesize(text_config(**values), out, seed=0)
        return out

    def prompts(self, model: Path, tokens: int, count: int, steps: int) -> Path:
        """A file of prompts of so many tokens each, spread over the vocabulary."""
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        vocabulary = config["text_config"]["vocab_size"]
        ids = [i * 2654435761 % vocabulary for i in range(count * (tokens + steps))]
        out = self.work / f"{model.name}-{count}x{tokens}+{steps}.jsonl"
        width = tokens + steps
        with out.open("w", encoding="utf-8") as file:
            for number in range(count):
                own = ids[number * width : (number + 1) * width]
                line = {
                    "id": f"p{number}",
                    "token_ids": own[:tokens],
                    "step_token_ids": own[tokens:],
                }
                print(json.dumps(line), file=file)
        return out

    def reference(
        self, engine: str, model: Path, prompts: Path, steps: int, scores: str = "auto"
    ) -> Path:
        """A stored trace, captured unless it is there."""
        out = self.work / f"{prompts.stem}-{engine}-{scores.replace(':', '')}.trace"
        if not out.exists():
            command = [self._binary, "capture", "--quiet", "--engine", engine]
            command += ["--model", str(model), "--prompts", str(prompts), "--steps", str(steps)]
            command += ["--python", self._python, "--scores", scores, "--out", str(out)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return out

    def run(self, engine: str, model: Path, reference: Path, scores: str = "auto") -> Run:
        """The whole job; synthetic weights may well show a fault of an engine."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            command = [self._binary, "--verbose", "run", "--engine", engine, "--model", str(model)]
            command += ["--reference", str(reference), "--scores", scores]
            command += ["--out", f"{folder}/report"]
            return measured(command, Path(folder) / "tmp", ends=(0, 1))


def of_shape(bench: Bench, shape: str, tokens: int, steps: int) -> dict[str, Any]:
    """The whole job on one shape, by engine."""
    model = bench.model(shape)
    prompts = bench.prompts(model, tokens, 1, steps)
    reference = bench.reference("torch", model, prompts, steps)
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    print(f"\n{shape}: {tokens} tokens, {steps} decode steps, all points; ", end="")
    print(f"weights {_mb(weights)} MB, the reference {_mb(_disk(reference))} MB")
    runs = {engine: bench.run(engine, model, reference) for engine in ENGINES}
    for engine, run in runs.items():
        print(f"\n| {engine} | seconds |\n|---|--:|")
        for stage, seconds in run.stages:
            print(f"| {stage} | {seconds:.2f} |")
        rest = run.seconds - sum(seconds for _, seconds in run.stages)
        print(f"| the rest | {rest:.2f} |\n| **all** | **{run.seconds:.2f}** |")
    print("\n| | seconds | CPU seconds | peak MB | of it anonymous | × weights | peak MB on disk |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for engine, run in runs.items():
        print(
            f"| {engine} | {run.seconds:.2f} | {run.cpu_seconds:.2f} | {_mb(run.peak_resident)} "
            f"| {_mb(run.peak_anonymous)} | {run.peak_anonymous / weights:.2f} "
            f"| {_mb(run.peak_disk) if run.peak_disk else 'not seen'} |"
        )
    return {"weights": weights, "runs": {name: asdict(run) for name, run in runs.items()}}


def growing(
    bench: Bench, axes: dict[str, Sequence[int]], rounds: int, scores: str = "all"
) -> dict[str, Any]:
    """Time, memory and the size of a trace along each axis, all else being equal."""
    found: dict[str, Any] = {}
    for axis, sizes in axes.items():
        measurements = [_point(bench, {**BASE, axis: size}, rounds, scores) for size in sizes]
        points, traces = zip(*measurements, strict=True)
        fits = {
            name: exponent(sizes, [getattr(run, name) for run in points])
            for name in ("seconds", "cpu_seconds", "peak_anonymous")
        }
        fits["trace"] = exponent(sizes, traces)
        others = ", ".join(f"{name} {size}" for name, size in BASE.items() if name != axis)
        print(f"\nlattice-f32 against itself, `--scores {scores}`")
        print(
            f"\n| {axis} ({others}) | seconds | CPU seconds | peak anonymous MB | trace MB |\n"
            "|---|--:|--:|--:|--:|"
        )
        for size, run, trace in zip(sizes, points, traces, strict=True):
            print(
                f"| {size} | {run.seconds:.3f} | {run.cpu_seconds:.3f} "
                f"| {_mb(run.peak_anonymous)} | {_mb(trace)} |"
            )
        shown = " | ".join(f"{fit:.2f}" for fit in fits.values())
        print(f"| exponent, upper half | {shown} |")
        runs = [asdict(run) for run in points]
        found[axis] = {"sizes": list(sizes), "runs": runs, "traces": traces, "exponents": fits}
    return found


def _point(bench: Bench, sizes: dict[str, int], rounds: int, scores: str) -> tuple[Run, int]:
    """The run of median time of several, and the bytes of the reference's trace."""
    model = bench.model(_shape(sizes["hidden"], sizes["layers"]))
    prompts = bench.prompts(model, sizes["tokens"], sizes["prompts"], steps=0)
    reference = bench.reference("lattice-f32", model, prompts, steps=0, scores=scores)
    runs = [bench.run("lattice-f32", model, reference, scores) for _ in range(rounds)]
    for run in runs:
        # This engine computes with the checkpoint's own weights, and writes nothing.
        run.require_positive(but="peak_disk")
    middle = statistics.median_low([run.seconds for run in runs])
    return next(run for run in runs if run.seconds == middle), _disk(reference)


def _shape(hidden: int, layers: int) -> dict[str, Any]:
    from synthetic import SHAPES

    return SHAPES["tiny"] | {
        "vocab_size": 2048,
        "max_position_embeddings": 8192,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "head_dim": hidden // 4,
        "mrope_section": [hidden // 16 - 2 * (hidden // 48), hidden // 48, hidden // 48],
        "linear_key_head_dim": hidden // 4,
        "linear_value_head_dim": hidden // 4,
    }


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of the logarithms by least squares, over the upper half of the sizes."""
    half = len(sizes) // 2 if len(sizes) > 2 else 0
    x = [math.log(size) for size in sizes[half:]]
    y = [math.log(value) for value in values[half:]]
    return statistics.linear_regression(x, y).slope


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def short(bench: Bench) -> dict[str, Any]:
    """Both tables on tiny sizes; checks that none of their figures is missing but the disk's."""
    _require_that_disk_is_seen(bench)
    shape = of_shape(bench, "tiny", tokens=16, steps=2)
    for name, run in shape["runs"].items():
        # So small a model's files may never be seen.
        missing = [key for key, value in run.items() if not value and key != "peak_disk"]
        if missing or any(not seconds >= 0 for _, seconds in run["stages"]):
            raise SystemExit(f"{name}: no figure for {', '.join(missing) or 'a stage'}")
        stages = " ".join(stage for stage, _ in run["stages"])
        for stage in ("loading", "capturing", "comparing", "replaying", "writing"):
            if stage not in stages:
                raise SystemExit(f"{name}: no time of the stage {stage!r} among {stages!r}")
    growth = growing(bench, SHORT, rounds=1)
    rows = growing(bench, {"tokens": SHORT["tokens"]}, rounds=1, scores="rows:4")
    for axis, values in [*growth.items(), *rows.items()]:
        if not all(math.isfinite(fit) for fit in values["exponents"].values()):
            raise SystemExit(f"{axis}: no exponent")
    print("\nno figure is missing")
    return {"shape": shape, "growth": growth, "long": rows}


def _require_that_disk_is_seen(bench: Bench) -> None:
    """A file that stays for some looks at the disk has to be found."""
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        wait = 10 * LOOKS_A_DISK * LOOK
        script = f'dd if=/dev/urandom of="$TMPDIR/file" bs=1M count=1 conv=fsync; sleep {wait}'
        run = measured(["sh", "-c", script], Path(folder))
    if not run.peak_disk:
        raise SystemExit("a file of a megabyte was there, and not seen")


def main() -> None:
    """Parse the command line, measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shape", choices=["tiny", "0.8b"], help="the whole job on this shape")
    what.add_argument("--growth", action="store_true", help="along each axis")
    what.add_argument("--long", action="store_true", help="along tokens, with some rows of scores")
    what.add_argument("--short", action="store_true", help="tiny sizes, every figure checked")
    add = parser.add_argument
    add("--binary", type=Path, default=ROOT / "target/release/layerdiff", metavar="FILE")
    add("--python", default=sys.executable, metavar="FILE", help="with layerdiff_hooks")
    add("--tokens", type=int, default=256, help="of the prompt of --shape")
    add("--steps", type=int, default=8, help="decode steps of --shape")
    add(
        "--rounds",
        type=int,
        default=5,
        help="of each point of --growth and --long; the median counts",
    )
    add("--work", type=Path, metavar="DIR", help="keeps models and references")
    add("--json", type=Path, metavar="FILE", help="all figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(options.binary, options.python, work.resolve())
        if options.shape:
            shape = "qwen3.5-0.8b" if options.shape == "0.8b" else options.shape
            found = {"shape": of_shape(bench, shape, options.tokens, options.steps)}
        elif options.growth:
            found = {"growth": growing(bench, GROWTH, options.rounds)}
        elif options.long:
            found = {"long": growing(bench, LONG, options.rounds, LONG_ROWS)}
        else:
            found = short(bench)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
