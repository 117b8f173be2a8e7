"""The `release` command: `layerdiff release`, its parts made as tasks on Ray.

One task makes PyTorch's side of some prompts, and one for each engine makes their rows of it;
each engine's layers are a task, and so are its worst prompts. The report is made of the parts by
`layerdiff release --parts`, from the same code and in the same order as on one machine.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.job import Job, PartFailed, digest, lay_out_tokens, present
from layerdiff_hooks.parts import Parts
from layerdiff_hooks.tasks import ids_of, message_and_hint, run

# What changes numbers and what runs them, and must be in a task as it is here: Ray has a
# number of threads of its own.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
VARIABLES = (*THREADS, "LAYERDIFF_PYTHON")
# Versions of what computes PyTorch's side. Nothing is imported: that takes seconds.
VERSIONS = """
import json, platform
from importlib import metadata
names = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
found = {d.metadata["Name"]: d.version for d in map(metadata.distribution, names)}
print(json.dumps({"python": platform.python_version(), **found}))
"""
# Whoever splits the work says these.
OWN = ("--dumps", "--part", "--parts", "--only")


def release(options: Namespace) -> int:
    """Run the command; the exit code is that of the release.

    Raises:
        LayerdiffError: bad input, or a part that nobody could make.
    """
    job, plan = _begin(options)
    errors = run(job, plan, options)
    with tempfile.TemporaryDirectory(prefix="layerdiff-") as folder:
        ids = ids_of(plan)
        for engine in plan["engines"]:
            _lay_out(job.store(), Path(folder), engine, ids, errors)
        command = [job.binary, "release", *job.arguments, "--parts", folder]
        return subprocess.run(command, cwd=job.folder, check=False).returncode


def _begin(options: Namespace) -> tuple[Job, dict[str, Any]]:
    arguments = tuple(options.arguments)
    for name in OWN:
        if any(argument.split("=")[0] == name for argument in arguments):
            raise LayerdiffError(
                f"{name} is for one machine", "leave it out: parts are kept anyway"
            )
    binary = shutil.which(options.binary)
    if binary is None:
        raise LayerdiffError(f"there is no program {options.binary}", "name it with --binary")
    binary = str(Path(binary).absolute())
    environment = {name: os.environ.get(name) for name in VARIABLES}
    folder = str(Path.cwd())
    own = digest(binary)
    if own is None:
        raise LayerdiffError(f"cannot read {binary}", "its hash tells whose parts fit together")
    job = Job(binary, arguments, folder, environment, options.parts, "", own)
    try:
        plan = job.run("plan")
    except PartFailed as error:
        raise LayerdiffError(*message_and_hint(error.error)) from error
    everything = {
        **plan["job"],
        "binary": job.digest,
        "threads": {name: environment[name] for name in THREADS},
        "versions": _versions(plan["python"], folder),
    }
    identity = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    where = options.parts if "://" in options.parts else str(Path(options.parts).absolute())
    job = Job(**{**vars(job), "parts": where, "identity": identity})
    job.store().claim()
    return job, plan


def _versions(python: str, folder: str) -> dict[str, str]:
    """Of the Python that layerdiff starts, and of its libraries."""
    hint = "name another interpreter with --python or LAYERDIFF_PYTHON"
    try:
        done = subprocess.run(
            [python, "-c", VERSIONS], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise LayerdiffError(f"cannot start {python}: {error.strerror}", hint) from error
    if done.returncode != 0:
        why = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise LayerdiffError(f"{python} does not say its versions: {why[0]}", hint)
    return json.loads(done.stdout)


def _lay_out(
    store: Parts,
    folder: Path,
    engine: str,
    ids: Sequence[str],
    errors: dict[tuple[str, str], str],
) -> None:
    for kind in ("tokens", "layers"):
        if (kind, engine) in errors:
            (folder / f"{engine}.{kind}.error").write_text(errors[kind, engine], encoding="utf-8")
    if ("tokens", engine) not in errors:
        lay_out_tokens(store, folder, engine, ids)
        found = ",".join(present(store, "worst", engine, "all"))
        (folder / f"{engine}.worst.json").write_text(f"[{found}]", encoding="utf-8")
    if ("layers", engine) not in errors:
        (report,) = present(store, "layers", engine, "all")
        (folder / f"{engine}.layers.json").write_text(report, encoding="utf-8")
