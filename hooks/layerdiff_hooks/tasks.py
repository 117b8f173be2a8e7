"""The parts of a release as tasks on Ray: made where missing, and again where one failed."""

import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from typing import Any

from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.job import Job, PartFailed, layers, reference, tokens, worst

# Nothing is told to anybody.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray

AGAIN = "finished parts are kept: run the same command again"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def run(job: Job, plan: dict[str, Any], options: Namespace) -> dict[tuple[str, str], str]:
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
        return Tasks(job, plan, options).finish()
    finally:
        ray.shutdown()


class Tasks:
    """The tasks of a release, and what becomes of them."""

    def __init__(self, job: Job, plan: dict[str, Any], options: Namespace) -> None:
        """Begin all that is lacking and waits for no other."""
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
            for name in ids_of(plan)
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
        """Wait for all; the errors of engines, by kind and engine."""
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
            message, hint = message_and_hint(cause.error)
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
        task = self._remote(worst).remote(self._job, engine, ids_of(self._plan))
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


def _plain(error: BaseException) -> str:
    """An error in one line, without the colours that Ray gives it."""
    lines = ESCAPES.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def message_and_hint(error: str) -> tuple[str, str | None]:
    """Layerdiff's error as this package has it."""
    message, _, hint = error.partition("\n  hint: ")
    return message, hint or None


def ids_of(plan: dict[str, Any]) -> list[str]:
    """The names of prompts and questions, in their order."""
    return [*(prompt["id"] for prompt in plan["prompts"]), *plan["questions"]]
