"""The parts of a release as Parquet files, on a disk or in an object store.

Each file is written under another name and then renamed, and its name says which part it is: a
part that is made twice is there once. A file carries the identity of its job.
"""

import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from layerdiff_hooks.errors import LayerdiffError

JOB = "job.json"
# In the metadata of each file.
IDENTITY = b"layerdiff.job"
# A part that is being written.
PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")

SCHEMAS = {
    "tokens": pa.schema(
        [
            pa.field("engine", pa.string()),
            pa.field("kind", pa.string()),
            pa.field("id", pa.string()),
            pa.field("category", pa.string()),
            # How many tokens were generated, and how many of them are equal in their places.
            pa.field("tokens", pa.int32()),
            pa.field("matches", pa.int32()),
            pa.field("first_divergence", pa.int32()),
            pa.field("mean_kl", pa.float64()),
            pa.field("max_kl", pa.float64()),
            # One for each position, after the reference's tokens.
            pa.field("kl", pa.list_(pa.float64())),
            pa.field("top1", pa.list_(pa.bool_())),
            pa.field("reference_tokens", pa.list_(pa.int64())),
            pa.field("candidate_tokens", pa.list_(pa.int64())),
            # Of a question: whether the likeliest letter is the right one.
            pa.field("reference_right", pa.bool_()),
            pa.field("candidate_right", pa.bool_()),
            pa.field("json", pa.string()),
        ]
    ),
    "layers": pa.schema(
        [
            pa.field("engine", pa.string()),
            pa.field("outcome", pa.string()),
            pa.field("headline", pa.string()),
            pa.field("first_fault", pa.string()),
            pa.field("json", pa.string()),
        ]
    ),
    "worst": pa.schema(
        [
            pa.field("engine", pa.string()),
            pa.field("id", pa.string()),
            pa.field("outcome", pa.string()),
            pa.field("first_fault", pa.string()),
            pa.field("json", pa.string()),
        ]
    ),
}


class Parts:
    """The parts of one job under a path or an URI."""

    def __init__(self, uri: str, identity: str) -> None:
        """Open the place; nothing is written yet."""
        place = uri if "://" in uri else str(Path(uri).absolute())
        try:
            self._files, self._root = fs.FileSystem.from_uri(place)
        except (pa.ArrowInvalid, OSError) as error:
            raise LayerdiffError(f"--parts {uri}: {error}", "name a directory or an URI") from error
        self._identity = identity

    def claim(self) -> None:
        """Begin the job here, or go on with it; what a killed driver was writing goes.

        Raises:
            LayerdiffError: the parts of another job are here, or the place cannot be written.
        """
        path = f"{self._root}/{JOB}"
        try:
            if self._files.get_file_info(path).type == fs.FileType.File:
                with self._files.open_input_stream(path) as file:
                    known = json.loads(file.read())["identity"]
                if known != self._identity:
                    raise LayerdiffError(
                        f"{self._root} holds parts of another release",
                        "another model, prompts, options, layerdiff, libraries or numbers of "
                        "threads: choose another --parts",
                    )
                self._sweep()
                return
            self._write(path, json.dumps({"identity": self._identity}).encode() + b"\n")
        except OSError as error:
            raise LayerdiffError(f"cannot write {self._root}: {error}") from error

    def has(self, kind: str, engine: str, name: str) -> bool:
        """Whether a part is there, whole and of this job."""
        return self.rows(kind, engine, name) is not None

    def rows(self, kind: str, engine: str, name: str) -> list[str] | None:
        """The documents of a part as layerdiff wrote them; None where it has to be made."""
        path = self._path(kind, engine, name)
        try:
            with self._files.open_input_file(path) as file:
                table = pq.read_table(file, columns=["json"])
        except (OSError, pa.ArrowInvalid):
            return None
        if (table.schema.metadata or {}).get(IDENTITY) != self._identity.encode():
            return None
        return table.column("json").to_pylist()

    def write(self, kind: str, engine: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a part, in place of one that is there."""
        schema = SCHEMAS[kind].with_metadata({IDENTITY: self._identity.encode()})
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._write(self._path(kind, engine, name), sink.getvalue())

    def _path(self, kind: str, engine: str, name: str) -> str:
        return f"{self._root}/{kind}/{engine}/{name}.parquet"

    def _sweep(self) -> None:
        for kind in SCHEMAS:
            here = fs.FileSelector(f"{self._root}/{kind}", allow_not_found=True, recursive=True)
            for file in self._files.get_file_info(here):
                if file.type == fs.FileType.File and PARTIAL.fullmatch(file.base_name):
                    self._files.delete_file(file.path)

    def _write(self, path: str, data: bytes | pa.Buffer) -> None:
        folder, _, name = path.rpartition("/")
        self._files.create_dir(folder, recursive=True)
        partial = f"{folder}/.{name}.{secrets.token_hex(4)}.partial"
        with self._files.open_output_stream(partial) as file:
            file.write(data)
        self._files.move(partial, path)


def token_row(row: Mapping[str, Any], category: str | None) -> dict[str, Any]:
    """What `--part tokens` says of a prompt or a question, with its figures in columns."""
    result = row["result"]
    flat = {
        "engine": row["engine"],
        "kind": row["kind"],
        "id": row["id"],
        "category": category,
        "json": json.dumps(row, ensure_ascii=False, allow_nan=False),
    }
    if row["kind"] != "prompt":
        right = {
            f"{side}_right": max(range(4), key=lambda i: float(result[side][i])) == result["answer"]
            for side in ("reference", "candidate")
        }
        return {**flat, "category": result["subject"], **right}
    greedy, positions = result["greedy"], result["positions"]
    divergence = greedy["divergence"]
    reference, candidate = greedy["reference"], greedy["candidate"]
    kl = [float(position["kl"]) for position in positions]
    return {
        **flat,
        "tokens": len(reference),
        "matches": sum(a == b for a, b in zip(reference, candidate, strict=False)),
        "first_divergence": None if divergence is None else divergence["position"],
        "mean_kl": math.fsum(kl) / len(kl) if kl else None,
        "max_kl": max(kl, default=None) if not any(map(math.isnan, kl)) else math.nan,
        "kl": kl,
        "top1": [position["top1"] for position in positions],
        "reference_tokens": reference,
        "candidate_tokens": candidate,
    }


def layers_row(engine: str, sheet: Mapping[str, Any]) -> dict[str, Any]:
    """What `--part layers` says: a report by layer."""
    report = sheet["result"]
    return {
        "engine": engine,
        "outcome": report["outcome"],
        "headline": report["verdict"]["headline"],
        "first_fault": (report["first_fault"] or {}).get("point"),
        "json": json.dumps(sheet, ensure_ascii=False, allow_nan=False),
    }


def worst_row(engine: str, sheet: Mapping[str, Any]) -> dict[str, Any]:
    """What `--part worst` says of one of the worst prompts, with its layers."""
    prompt = sheet["result"]
    layers = prompt["layers"] or {}
    return {
        "engine": engine,
        "id": prompt["id"],
        "outcome": layers.get("outcome"),
        "first_fault": layers.get("first_fault"),
        "json": json.dumps(sheet, ensure_ascii=False, allow_nan=False),
    }
