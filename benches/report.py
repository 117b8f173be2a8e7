"""Makes the report on speed and scale anew: reports/speed/, one section for each bench.

    python benches/report.py --cold                everything: an hour and a half, machine quiet
    python benches/report.py --only compare        one section, the others as they are
    python benches/report.py --put-together        no section: what there is, with the notes anew

Sections: compare, memory, capture, pytorch, shape, replay, growth, long, start; with `--cold`,
start also builds from nothing.
Every figure of a section is from one run; only its ratios can be held against those of another.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "reports" / "speed"
BINARY = ROOT / "target" / "release" / "layerdiff"


def said(command: Sequence[str]) -> str:
    """What a command prints; it must end well."""
    print("$", *command, file=sys.stderr)
    env = os.environ | {"LAYERDIFF_PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def bench(name: str, *args: str, threads: int | None = None) -> str:
    """The output of a bench in Rust, with the command that gives it."""
    command = ["cargo", "bench", "--quiet", "--bench", name, "--", *args]
    if threads:
        command = ["env", f"RAYON_NUM_THREADS={threads}", *command]
    shown = " ".join(command).replace(" --quiet", "").removesuffix(" --").removeprefix("env ")
    return f"`{shown}`\n\n```text\n{said(command)}\n```"


def script(name: str, *args: str) -> str:
    """The output of a bench in Python, which is Markdown."""
    shown = " ".join(["python", f"benches/{name}.py", *args])
    return f"`{shown}`\n\n{said([sys.executable, f'benches/{name}.py', *args])}"


def timed(command: Sequence[str], rounds: int) -> tuple[float, float]:
    """Median and least seconds of a command."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken), min(taken)


def start(cold: bool) -> str:
    """How long the command takes to be there, and how large it is."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            ("`layerdiff --help`", timed([str(BINARY), "--help"], 21)),
            ("`layerdiff run`", timed([str(BINARY), "run", "--out", f"{folder}/report"], 7)),
        ]
    lines = ["| | median | least |", "|---|--:|--:|"]
    for what, (median, least) in rows:
        lines.append(f"| {what} | {1e3 * median:.0f} ms | {1e3 * least:.0f} ms |")
    lines.append("")
    lines.append(f"The binary has {BINARY.stat().st_size / 1e6:.1f} MB, with its symbols.")
    if cold:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            said(["cargo", "build", "--release", "--target-dir", folder])
            taken = time.perf_counter() - begin
        lines.append(f"`cargo build --release` from nothing took {taken / 60:.1f} minutes.")
    return "\n".join(lines)


TITLES = {
    "compare": "Comparison, against a pass that only sums both files",
    "memory": "Memory of a comparison that is larger than the machine's memory",
    "capture": "Capturing lattice, against the engine without hooks",
    "pytorch": "Capturing PyTorch, against the model without hooks",
    "shape": "The whole job on the shape of Qwen3.5-0.8B",
    "replay": "Replay, against lattice's f32 passes over the same tokens",
    "growth": "How the whole job grows",
    "long": "Long contexts",
    "start": "Start",
}


def sections(cold: bool) -> dict[str, Callable[[], str]]:
    """What makes each section."""
    return {
        "compare": lambda: bench("compare", "512", "--numpy"),
        "memory": lambda: bench("memory"),
        "capture": lambda: bench("capture"),
        "pytorch": lambda: "\n\n".join(
            [
                script("capture"),
                script("capture", "--dtype", "bfloat16"),
                script("capture", "--hidden", "512", "--tokens", "192"),
            ]
        ),
        "shape": lambda: script("scale", "--shape", "0.8b"),
        "replay": lambda: bench("replay", threads=1),
        "growth": lambda: script("scale", "--growth"),
        "long": lambda: script("scale", "--long"),
        "start": lambda: start(cold),
    }


def machine() -> str:
    """The processor, its threads, and the memory."""
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cpu = names[0].split(":", 1)[1].strip() if names else platform.processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{cpu}, {os.cpu_count()} threads, {memory:.0f} GB, {platform.system()}"


def main() -> None:
    """Make the sections that were asked for, and put all together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", action="append", choices=TITLES, help="these sections alone")
    add("--cold", action="store_true", help="also time a build from nothing")
    add("--put-together", action="store_true", help="measure nothing, put the sections together")
    options = parser.parse_args()
    if options.put_together:
        return put_together()
    said(["cargo", "build", "--release", "--quiet"])
    OUT.mkdir(parents=True, exist_ok=True)
    for name, make in sections(options.cold).items():
        if name in (options.only or TITLES):
            body = make().replace(str(ROOT) + "/", "").replace(tempfile.gettempdir(), "TMP")
            made = f"{date.today().isoformat()}, {machine()}."
            (OUT / f"{name}.md").write_text(f"{body}\n\n*{made}*\n", encoding="utf-8")
    put_together()


def put_together() -> None:
    """Write the report of the sections that there are, and of the notes."""
    parts = [
        f"## {title}\n\n{(OUT / f'{name}.md').read_text(encoding='utf-8')}"
        for name, title in TITLES.items()
        if (OUT / f"{name}.md").exists()
    ]
    notes = OUT / "notes.md"
    said_of_it = notes.read_text(encoding="utf-8") if notes.exists() else ""
    how = "Made by `python benches/report.py --cold`; only ratios within a section count."
    head = f"# Speed and scale\n\n{how}\n"
    (OUT / "report.md").write_text("\n".join([head, said_of_it, *parts]), encoding="utf-8")


if __name__ == "__main__":
    if shutil.which("cargo") is None:
        raise SystemExit("cargo is not there: https://rustup.rs")
    main()
