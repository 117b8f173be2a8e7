"""The parts of a release: what each is made with, by `layerdiff release --part`."""

import functools
import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.parts import Parts, layers_row, token_row, worst_row


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
        lay_out_tokens(store, Path(folder), engine, ids)
        found = job.of(engine).run("worst", "--parts", folder)
    store.write("worst", engine, "all", [worst_row(engine, sheet) for sheet in found])


def lay_out_tokens(store: Parts, folder: Path, engine: str, ids: Sequence[str]) -> None:
    """The rows of an engine as `layerdiff release --parts` reads them."""
    with (folder / f"{engine}.tokens.jsonl").open("w", encoding="utf-8") as file:
        for name in ids:
            file.writelines(f"{row}\n" for row in present(store, "tokens", engine, name))


def present(store: Parts, kind: str, engine: str, name: str) -> list[str]:
    """The rows of a part that was made.

    Raises:
        LayerdiffError: somebody has removed it since.
    """
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
