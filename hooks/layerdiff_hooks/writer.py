"""Writes a trace directory, format version 1: whole or not at all.

`src/trace/mod.rs` of layerdiff is the specification. Tensors are kept until a shard is large
enough, and written by a thread of its own while the model goes on; the directory gets its name
when it is complete.
"""

import json
import os
import re
import secrets
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from layerdiff_hooks.architecture import ORIGINAL
from layerdiff_hooks.errors import LayerdiffError

SHARD_BYTES = 8 * 2**20
# Left on the disk, for the manifest and for others.
RESERVED_BYTES = 64 * 2**20
# Beyond so many unwritten shards the model waits: a disk that is slower does not fill the memory.
UNWRITTEN = 2
PROMPT_ID = re.compile(r"[A-Za-z0-9._-]+")
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
}


def require_absent(out: Path) -> None:
    """Refuse a trace that is already there.

    Raises:
        LayerdiffError: something of that name exists.
    """
    if os.path.lexists(out):
        raise LayerdiffError(
            f"{out} already exists", "an existing trace is never touched: name another, or move it"
        )


def require_prompt_id(name: str) -> None:
    """Refuse an id that the format does not allow.

    Raises:
        LayerdiffError: it is empty, has other characters, or leads out of a directory.
    """
    if not PROMPT_ID.fullmatch(name) or name in (".", ".."):
        raise LayerdiffError(
            f"prompt id {name!r} is not allowed",
            "use ASCII letters, digits, '-', '_' and '.', and not '.' or '..' alone",
        )


class TraceWriter:
    """A trace being written. As a context manager it removes the unfinished trace on errors."""

    def __init__(
        self,
        out: Path,
        architecture: str,
        config: Mapping[str, Any],
        provenance: Mapping[str, Any],
        adapter: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the hidden directory that becomes the trace.

        Raises:
            LayerdiffError: `out` exists, or its directory cannot be written.
        """
        self._out = Path(os.path.abspath(out))  # noqa: PTH100 (resolve() follows links)
        require_absent(self._out)
        self._head = {"format": "layerdiff-trace", "version": 1, "architecture": architecture}
        self._config = config
        self._provenance = provenance
        self._adapter = {"adapter": adapter} if adapter else {}
        self._shards: list[Future[dict[str, Any]]] = []
        self._unwritten: deque[tuple[Future[dict[str, Any]], int]] = deque()
        self._thread = ThreadPoolExecutor(1, "trace")
        self._entries: list[dict[str, Any]] = []
        self._pending: dict[str, Tensor] = {}
        self._names: set[str] = set()
        self._open = True
        self.generated: Mapping[str, Any] | None = None
        self._folder = self._out.with_name(f".{self._out.name}.{secrets.token_hex(4)}.partial")
        try:
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise LayerdiffError(f"cannot write {self._out}: {error.strerror}") from error

    @property
    def entries(self) -> int:
        """How many tensors were added."""
        return len(self._entries)

    @property
    def folder(self) -> Path:
        """Where the trace is until it is complete."""
        return self._folder

    def add(
        self,
        prompt: str,
        step: int,
        point: str,
        tensor: Tensor,
        derived: bool,
        basis: str = ORIGINAL,
        rows: Sequence[int] | None = None,
    ) -> None:
        """Append a tensor; the order of these calls is the order of execution.

        The tensor is kept, not copied: it must be contiguous, on the CPU and nobody else's. `rows`
        are the query tokens whose rows it has, where it has not all.

        Raises:
            LayerdiffError: a dtype that the format lacks, or the point came before in this step.
        """
        name = f"{prompt}/{step}/{point}"
        if name in self._names:
            raise LayerdiffError(
                f"{point} was seen twice in step {step} of prompt {prompt}",
                "a function that is called more than once needs `nth` in the description",
            )
        if tensor.dtype not in DTYPES:
            raise LayerdiffError(f"{point}: a trace cannot hold {tensor.dtype}")
        self._names.add(name)
        self._pending[name] = tensor
        self._entries.append(
            {
                "order": len(self._entries),
                "prompt": prompt,
                "step": step,
                "point": point,
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "basis": basis,
                "derived": derived,
                "shard": len(self._shards),
                **({"rows": list(rows)} if rows is not None else {}),
            }
        )

    def flush(self, at_least: int = SHARD_BYTES) -> None:
        """Have the pending tensors written as a shard if they are more than `at_least` bytes.

        Raises:
            LayerdiffError: the disk has no room for it, or an earlier one could not be written.
        """
        size = sum(t.numel() * t.element_size() for t in self._pending.values())
        if not self._pending or size <= at_least:
            return
        self._await(UNWRITTEN - 1)
        free = shutil.disk_usage(self._folder).free - sum(size for _, size in self._unwritten)
        if free < size + RESERVED_BYTES:
            raise LayerdiffError(
                f"no room for a shard of {size} bytes: {free} bytes are free at {self._out.parent}",
                "capture fewer points or prompts, or write to another disk",
            )
        path = self._folder / f"shard-{len(self._shards):05}.safetensors"
        shard = self._thread.submit(_write_shard, self._pending, path)
        self._shards.append(shard)
        self._unwritten.append((shard, size))
        self._pending = {}

    def _await(self, left: int) -> None:
        """Wait until no more than so many shards are unwritten.

        Raises:
            LayerdiffError: one of them could not be written.
        """
        while self._unwritten and (len(self._unwritten) > left or self._unwritten[0][0].done()):
            shard, _ = self._unwritten.popleft()
            try:
                shard.result()
            # Of tensors that share memory safetensors says so by a RuntimeError.
            except (OSError, SafetensorError, RuntimeError) as error:
                raise LayerdiffError(f"cannot write {self._out}: {error}") from error

    def finish(
        self, prompts: Sequence[Mapping[str, Any]], self_check: Mapping[str, Any] | None
    ) -> None:
        """Write the manifest and give the directory its name.

        Raises:
            LayerdiffError: there is no tensor, not all of them could be written, or `out` has
                come into being meanwhile.
        """
        self.flush(at_least=-1)
        self._await(0)
        self._thread.shutdown()
        if not self._entries:
            raise LayerdiffError("no tensor was captured")
        manifest = {
            **self._head,
            "config": self._config,
            "provenance": self._provenance,
            **self._adapter,
            "self_check": self_check,
            "prompts": prompts,
            "shards": [shard.result() for shard in self._shards],
            "tensors": self._entries,
            **({"generated": self.generated} if self.generated else {}),
        }
        path = self._folder / "manifest.json"
        path.write_text("".join(_json_lines(manifest)), encoding="utf-8")
        _to_disk(path)
        require_absent(self._out)
        try:
            self._folder.rename(self._out)
        except OSError as error:
            raise LayerdiffError(f"cannot write {self._out}: {error.strerror}") from error
        self._open = False

    def abort(self) -> None:
        """Remove what was written of a trace that is not finished."""
        if self._open:
            self._open = False
            self._pending = {}
            # Nothing may be written there any more.
            self._thread.shutdown(cancel_futures=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove an unfinished trace."""
        self.abort()


class Silent(TraceWriter):
    """Counts, and writes nothing: of several processes one writes."""

    def __init__(self, *_: object, **__: object) -> None:
        """Touch nothing."""
        self._count = 0
        self.generated: Mapping[str, Any] | None = None

    @property
    def entries(self) -> int:
        """How many tensors were added."""
        return self._count

    def add(self, *_: object) -> None:
        """Count the tensor."""
        self._count += 1

    def flush(self, at_least: int = SHARD_BYTES) -> None:
        """Nothing is pending."""

    def finish(
        self, prompts: Sequence[Mapping[str, Any]], self_check: Mapping[str, Any] | None
    ) -> None:
        """There is nothing to write."""

    def abort(self) -> None:
        """There is nothing to remove."""


def _json_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """JSON with one line for each key and for each element of a list."""

    def dumps(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    separator = "{\n"
    for key, value in manifest.items():
        yield f"{separator}{dumps(key)}: "
        if isinstance(value, list | tuple) and value:
            yield "[\n" + ",\n".join(dumps(item) for item in value) + "\n]"
        else:
            yield dumps(value)
        separator = ",\n"
    yield "\n}\n"


def _write_shard(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Write a file and return its line in the manifest."""
    save_file(dict(tensors), path)
    # safetensors makes files that only their owner may read.
    path.chmod(path.parent.stat().st_mode & 0o666)
    _to_disk(path)
    return {"file": path.name, "bytes": path.stat().st_size}


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
