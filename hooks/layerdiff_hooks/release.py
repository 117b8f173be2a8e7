"""The `release` command: `layerdiff release`, its parts made as tasks on Ray.

One task makes PyTorch's side of some prompts, and one for each engine makes their rows of it;
each engine's layers are a task, and so are its worst prompts. The report is made of the parts by
`layerdiff release --parts`, from the same code and in the same order as on one machine.
"""

import functools
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.parts import Parts, layers_row, token_row, worst_row

# Nothing is told to anybody.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray

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
AGAIN = "finished parts are kept: run the same command again"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
# Whoever splits the work says these.
OWN = ("--dumps", "--part", "--parts", "--only")


class PartFailed(Exception):
    """A part that layerdiff refused or that broke off, and its error; it is tried again."""

    def __init__(self, part: str, error: str) -> None:
        """Keep both, also on the way through Ray."""
        super().__init__(part, error)
        self.part = part
        self.error = error


@dataclass(frozen=True)
class Job:
    """What every task needs."""

    binary: str
    arguments: tuple[str, ...]
    folder: str
    environment: dict[str, str | None]
    parts: str
    identity: str
    # Of the binary: on another machine another one may lie at its path.
    digest: str

    def run(self, part: str, *more: str) -> Any:
        """The document of a part.

        Raises:
            PartFailed: with layerdiff's error.
            LayerdiffError: this machine has another layerdiff.
        """
        if (found := digest(self.binary)) != self.digest:
            raise LayerdiffError(
                f"{self.binary} on {platform.node()} is not the program that was started: "
                f"sha256 {found or 'of nothing'}, not {self.digest}",
                "put the same layerdiff at this path on all machines",
            )
        environment = {k: v for k, v in os.environ.items() if k not in self.environment}
        environment |= {k: v for k, v in self.environment.items() if v is not None}
        command = [self.binary, "release", *self.arguments, "--part", part, *more]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            _, found, error = ("\n" + done.stderr).rpartition("\nerror: ")
            ended = f"layerdiff ended with code {done.returncode}: {done.stderr[-500:]}"
            raise PartFailed(part, error.removesuffix("\n") if found else ended)
        return json.loads(done.stdout)

    def of(self, engine: str) -> "Job":
        """The same of one engine."""
        kept = _without(self.arguments, "--engine")
        return Job(**{**vars(self), "arguments": (*kept, "--engine", engine)})

    def store(self) -> Parts:
        """Where the parts are kept."""
        return Parts(self.parts, self.identity)


def digest(binary: str) -> str | None:
    """The hash of a program, taken once in a process; None where there is none."""
    try:
        about = Path(binary).stat()
        return _digest(binary, about.st_size, about.st_mtime_ns)
    except OSError:
        return None


@functools.cache
def _digest(binary: str, size: int, modified: int) -> str:
    with Path(binary).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reference(job: Job, ids: Sequence[str]) -> bytes:
    """PyTorch's side of some prompts and questions, as an archive of layerdiff's dumps."""
    with tempfile.TemporaryDirectory(prefix="layerdiff-") as folder:
        job.run("reference", "--dumps", f"{folder}/dumps", *_only(ids))
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(f"{folder}/dumps", "dumps")
        return archive.getvalue()


def tokens(job: Job, engine: str, categories: dict[str, str | None], archive: bytes) -> None:
    """The rows of one engine on some prompts and questions: those that are not there yet."""
    store = job.store()
    ids = [name for name in categories if not store.has("tokens", engine, name)]
    if not ids:
        return
    with tempfile.TemporaryDirectory(prefix="layerdiff-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        dumps = ("--dumps", f"{folder}/dumps")
        for row in job.of(engine).run("tokens", *dumps, *_only(ids)):
            store.write("tokens", engine, row["id"], [token_row(row, categories[row["id"]])])


def layers(job: Job, engine: str) -> None:
    """One engine by layer."""
    store = job.store()
    if not store.has("layers", engine, "all"):
        sheet = job.of(engine).run("layers")
        store.write("layers", engine, "all", [layers_row(engine, sheet)])


def worst(job: Job, engine: str, ids: Sequence[str]) -> None:
    """The worst prompts of one engine by layer, when all its rows are there."""
    store = job.store()
    if store.has("worst", engine, "all"):
        return
    with tempfile.TemporaryDirectory(prefix="layerdiff-") as folder:
        _lay_out_tokens(store, Path(folder), engine, ids)
        found = job.of(engine).run("worst", "--parts", folder)
    store.write("worst", engine, "all", [worst_row(engine, sheet) for sheet in found])


def release(options: Namespace) -> int:
    """Run the command; the exit code is that of the release.

    Raises:
        LayerdiffError: bad input, or a part that nobody could make.
    """
    job, plan = _begin(options)
    errors = _run(job, plan, options)
    with tempfile.TemporaryDirectory(prefix="layerdiff-") as folder:
        ids = _ids(plan)
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
        raise LayerdiffError(*_message_and_hint(error.error)) from error
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


def _run(job: Job, plan: dict[str, Any], options: Namespace) -> dict[tuple[str, str], str]:
    """Make what is missing; return the errors of engines that could not be run."""
    local = {"num_cpus": options.cpus} if options.address is None else {}
    # Ray tells of a killed worker on stdout, which is the report's.
    with redirect_stdout(sys.stderr):
        return _on_ray(job, plan, options, local)


def _on_ray(
    job: Job, plan: dict[str, Any], options: Namespace, local: dict[str, int]
) -> dict[tuple[str, str], str]:
    try:
        ray.init(
            address=options.address,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            **local,
        )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        # A ConnectionError is an OSError.
        here = options.address is None
        raise LayerdiffError(
            f"cannot {'start Ray' if here else f'reach Ray at {options.address}'}: {_plain(error)}",
            "look at Ray's logs in /tmp/ray" if here else "is the cluster up? `ray status` tells",
        ) from error
    try:
        return _Tasks(job, plan, options).finish()
    finally:
        ray.shutdown()


class _Tasks:
    """The tasks of a release, and what becomes of them."""

    def __init__(self, job: Job, plan: dict[str, Any], options: Namespace) -> None:
        self._job = ray.put(job)
        self._plan = plan
        self._options = options
        self._pending: dict[ray.ObjectRef, tuple[str, str, int]] = {}
        self._left: dict[str, int] = dict.fromkeys(plan["engines"], 0)
        # By kind and engine; those that come first in the order of the tasks count.
        self._errors: dict[tuple[str, str], tuple[int, str]] = {}
        self._done = 0
        store = job.store()
        lacking = {
            name: [e for e in plan["engines"] if not store.has("tokens", e, name)]
            for name in _ids(plan)
        }
        for chunk in self._chunks([name for name in lacking if lacking[name]]):
            archive = self._remote(reference).remote(self._job, list(chunk))
            for engine in plan["engines"]:
                if any(engine in lacking[name] for name in chunk):
                    task = self._remote(tokens).remote(self._job, engine, chunk, archive)
                    self._add(task, "tokens", engine)
                    self._left[engine] += 1
        for engine in plan["engines"]:
            self._add(self._remote(layers).remote(self._job, engine), "layers", engine)
            if self._left[engine] == 0:
                self._look(engine)

    def finish(self) -> dict[tuple[str, str], str]:
        while self._pending:
            (task,), _ = ray.wait(list(self._pending))
            kind, engine, place = self._pending.pop(task)
            self._done += 1
            try:
                ray.get(task)
            except ray.exceptions.RayError as error:
                self._failed(kind, engine, place, error)
            if kind == "tokens":
                self._left[engine] -= 1
                if self._left[engine] == 0 and ("tokens", engine) not in self._errors:
                    self._look(engine)
            _say(self._options.progress, kind, engine, self._done, len(self._pending))
        return {key: text for key, (_, text) in self._errors.items()}

    def _failed(self, kind: str, engine: str, place: int, error: ray.exceptions.RayError) -> None:
        """Keep what is the engine's own error; raise any other.

        Raises:
            LayerdiffError: it is no engine's, but of PyTorch's side, a worker or a machine.
        """
        cause: BaseException = error
        # Of a task that another one waited for, Ray has one around the other.
        while isinstance(cause, ray.exceptions.RayTaskError):
            cause = cause.cause
        if not isinstance(cause, PartFailed):
            own = isinstance(cause, LayerdiffError)
            said = cause.message if own else _plain(cause)
            hint = cause.hint if own else None
            raise LayerdiffError(f"{kind} of {engine}: {said}", hint or AGAIN) from error
        if cause.part not in ("tokens", "layers", "worst"):
            message, hint = _message_and_hint(cause.error)
            raise LayerdiffError(f"part {cause.part}: {message}", hint) from error
        # On one machine too, the worst prompts are looked into where the tokens are judged.
        key = ("layers" if kind == "layers" else "tokens", engine)
        self._errors[key] = min((place, cause.error), self._errors.get(key, (place, cause.error)))

    def _chunks(self, wanted: Sequence[str]) -> Iterator[dict[str, str | None]]:
        """Names and categories; prompts and questions apart, since they take different times."""
        prompts = {prompt["id"]: prompt["category"] for prompt in self._plan["prompts"]}
        size = self._options.chunk
        for every in (prompts, dict.fromkeys(self._plan["questions"])):
            names = [name for name in wanted if name in every]
            for start in range(0, len(names), size):
                yield {name: every[name] for name in names[start : start + size]}

    def _look(self, engine: str) -> None:
        task = self._remote(worst).remote(self._job, engine, _ids(self._plan))
        self._add(task, "worst", engine)

    def _add(self, task: ray.ObjectRef, kind: str, engine: str) -> None:
        self._pending[task] = (kind, engine, self._done + len(self._pending))

    def _remote(self, function: Callable[..., object]) -> Any:
        retries = self._options.retries
        return ray.remote(num_cpus=1, max_retries=retries, retry_exceptions=[PartFailed])(function)


def _say(progress: str, kind: str, engine: str, done: int, pending: int) -> None:
    if progress == "json":
        event = {"event": "part", "part": kind, "engine": engine, "done": done, "pending": pending}
        print(json.dumps(event), file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        print(f"[{done}/{done + pending}] {kind} of {engine}", file=sys.stderr, flush=True)


def _message_and_hint(error: str) -> tuple[str, str | None]:
    """Layerdiff's error as this package has it."""
    message, _, hint = error.partition("\n  hint: ")
    return message, hint or None


def _plain(error: BaseException) -> str:
    """An error in one line, without the colours that Ray gives it."""
    lines = ESCAPES.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _ids(plan: dict[str, Any]) -> list[str]:
    return [*(prompt["id"] for prompt in plan["prompts"]), *plan["questions"]]


def _lay_out_tokens(store: Parts, folder: Path, engine: str, ids: Sequence[str]) -> None:
    """The rows of an engine as `layerdiff release --parts` reads them."""
    with (folder / f"{engine}.tokens.jsonl").open("w", encoding="utf-8") as file:
        for name in ids:
            file.writelines(f"{row}\n" for row in _present(store, "tokens", engine, name))


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
        _lay_out_tokens(store, folder, engine, ids)
        found = ",".join(_present(store, "worst", engine, "all"))
        (folder / f"{engine}.worst.json").write_text(f"[{found}]", encoding="utf-8")
    if ("layers", engine) not in errors:
        (report,) = _present(store, "layers", engine, "all")
        (folder / f"{engine}.layers.json").write_text(report, encoding="utf-8")


def _present(store: Parts, kind: str, engine: str, name: str) -> list[str]:
    rows = store.rows(kind, engine, name)
    if rows is None:
        raise LayerdiffError(
            f"part {kind} of {engine}, {name}, is gone", "run the same command again"
        )
    return rows


def _only(ids: Sequence[str]) -> list[str]:
    return [argument for name in ids for argument in ("--only", name)]


def _without(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments without an option that takes a value."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument != name and not argument.startswith(f"{name}="):
            kept.append(argument)
        skip = not skip and argument == name
    return kept
