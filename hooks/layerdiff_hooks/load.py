"""Load the text model of a checkpoint folder, or say exactly why it cannot be loaded.

A folder holds ``config.json`` (the text configuration at top level or under the description's
section) and the weights: ``model.safetensors``, or shards named by
``model.safetensors.index.json``. Tensors are F32, F16 or BF16; the architecture's description
says which prefixes their names may have, which tensors are left alone, and what Transformers
calls the model. Nothing is initialised at random: every parameter comes from the file, and every
tensor of the file has a place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.distributed import DistributedConfig

from layerdiff_hooks.architecture import Architecture, load_architecture
from layerdiff_hooks.errors import LayerdiffError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LM_HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
SHOWN_NAMES = 5


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be loaded; the message names the file and the cause."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint: the name in the file and the file that holds it."""

    name: str
    file: Path


def read_architecture(directory: Path) -> Architecture:
    """The description of the checkpoint's model type, which ``config.json`` names."""
    path = directory / "config.json"
    root = _read_json(path)
    inner = [value for value in root.values() if isinstance(value, dict)]
    named = [part.get("model_type") for part in (root, *inner)]
    named = [name for name in named if isinstance(name, str)]
    if not named:
        raise CheckpointError(f"{path}: model_type: expected the name of a model, got nothing")
    known: Architecture | None = None
    for name in reversed(named):
        try:
            known = load_architecture(name)
        except LayerdiffError as error:
            unknown = error
    if known is None:
        raise CheckpointError(f"{path}: model_type: {unknown}") from unknown
    # The decoder's own section has the last word.
    section = known.data.get("config_section", "")
    own = root.get(section, root)
    found = own.get("model_type") if isinstance(own, dict) else None
    if found is not None and found not in known.data["model_types"]:
        expected = " or ".join(map(repr, known.data["model_types"]))
        raise CheckpointError(f"{path}: {section}.model_type: expected {expected}, got {found!r}")
    return known


def read_config(directory: Path, architecture: Architecture | None = None) -> PreTrainedConfig:
    """Read the text configuration from ``config.json``.

    ``tie_word_embeddings`` may stand at top level, in the description's section, or at both
    places with the same value; transformers reads the inner one, other engines the outer one.
    """
    path = directory / "config.json"
    architecture = architecture or read_architecture(directory)
    root = _read_json(path)
    section = architecture.data.get("config_section", "")
    inner = root.get(section, root)
    if not isinstance(inner, dict):
        raise CheckpointError(f"{path}: {section}: expected an object, got {inner!r}")
    try:
        architecture.check(root)
    except LayerdiffError as error:
        raise CheckpointError(f"{path}: {error}") from error
    tied = [c["tie_word_embeddings"] for c in (root, inner) if "tie_word_embeddings" in c]
    if len(set(tied)) > 1:
        raise CheckpointError(
            f"{path}: tie_word_embeddings is {tied[0]} at top level and {tied[1]} in {section}\n"
            "hint: engines disagree about which one counts; make them equal"
        )
    values = dict(inner)
    values.pop("model_type", None)
    if tied:
        values["tie_word_embeddings"] = tied[0]
    try:
        return _class(architecture, "config").from_dict(values)
    except Exception as error:
        raise CheckpointError(f"{path}: {error}") from error


def _class(architecture: Architecture, what: str) -> Any:
    name = architecture.data["torch"][what]
    found = getattr(transformers, name, None)
    if found is None:
        raise CheckpointError(
            f"transformers {transformers.__version__} has no {name}\n"
            f"hint: install a version that knows {architecture.data['title']}"
        )
    return found


def list_tensors(directory: Path, architecture: Architecture | None = None) -> dict[str, Entry]:
    """Map each parameter name of the text model to its place in the checkpoint.

    With an index, the index decides which shard a tensor comes from.
    """
    architecture = architecture or read_architecture(directory)
    index, single = directory / INDEX, directory / WEIGHTS
    if index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index}: weight_map: expected a non-empty object")
        places = _indexed_places(index, weight_map)
    elif single.is_file():
        places = [(name, single) for name in _names(single)]
    else:
        raise CheckpointError(f"{directory}: neither {WEIGHTS} nor {INDEX} is there")

    entries: dict[str, Entry] = {}
    for name, file in places:
        if name.startswith(tuple(architecture.data.get("ignored_weights", ()))):
            continue
        target = architecture.canonical(name)
        if target in entries:
            raise CheckpointError(
                f"{file}: {name} and {entries[target].name} are both {target} of the text model"
            )
        entries[target] = Entry(name, file)
    return entries


def load_text_model(
    directory: str | Path,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    processes: int = 1,
) -> PreTrainedModel:
    """Build the text model on the CPU with its weights rounded to ``dtype``, in eval mode.

    Equal to ``AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)``, but missing,
    unexpected and misshapen tensors are errors. ``attn_implementation`` None leaves
    transformers' default. With several ``processes``, which are a group already, each gets its
    share of the model, by transformers' tensor parallelism.

    Raises:
        CheckpointError: naming the file, the tensors and what was expected.
    """
    directory = Path(directory)
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(map(str, DTYPES))}, got {dtype}")
    architecture = read_architecture(directory)
    config = read_config(directory, architecture)
    entries = list_tensors(directory, architecture)
    if attn_implementation is not None:
        config._attn_implementation = attn_implementation
    config.dtype = dtype
    # On the meta device nothing is allocated or drawn from the random generator.
    with torch.device("meta"):
        model = _class(architecture, "model")(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    tied = bool(config.tie_word_embeddings)
    surplus_head = entries.get(LM_HEAD) if tied else None
    if tied:
        expected.pop(LM_HEAD)
        entries.pop(LM_HEAD, None)
    _require_names(directory, expected.keys(), entries.keys(), tied)
    if processes > 1:
        if surplus_head is not None:
            _require_same_head(surplus_head, entries[EMBEDDING])
        return _load_shares(directory, type(model), config, dtype, processes)

    weights: dict[str, torch.Tensor] = {}
    for file in sorted({entry.file for entry in entries.values()}):
        wanted = {target: entry.name for target, entry in entries.items() if entry.file == file}
        for target, tensor in _read_tensors(file, wanted):
            if tensor.shape != expected[target]:
                raise CheckpointError(
                    f"{file}: {wanted[target]}: expected shape {list(expected[target])}, "
                    f"got {list(tensor.shape)}"
                )
            weights[target] = tensor.to(dtype)
    if surplus_head is not None:
        _require_same_head(surplus_head, entries[EMBEDDING])

    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    # The rotary frequencies are computed, not stored, and stay f32 whatever the dtype.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=config)
    left = [n for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    if left:
        raise CheckpointError(f"{directory}: no values for {_some(left)}")
    return model.eval()


def _load_shares(
    directory: Path,
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    dtype: torch.dtype,
    processes: int,
) -> PreTrainedModel:
    """A process's share of the model, by the plan that transformers has for it."""
    transformers.logging.disable_progress_bar()
    split = DistributedConfig(tp_size=processes, tp_plan="auto")
    try:
        model = kind.from_pretrained(
            directory, config=config, dtype=dtype, distributed_config=split, local_files_only=True
        )
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{directory}: cannot be split: {error}") from error
    return model.eval()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def _indexed_places(index: Path, weight_map: dict[str, Any]) -> list[tuple[str, Path]]:
    shards: dict[str, set[str]] = {}
    places: list[tuple[str, Path]] = []
    for name, shard in sorted(weight_map.items()):
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise CheckpointError(f"{index}: {name}: expected a file name, got {shard!r}")
        file = index.parent / shard
        if shard not in shards:
            shards[shard] = set(_names(file))
        if name not in shards[shard]:
            raise CheckpointError(f"{file}: {name} is not there, but {INDEX} names this file")
        places.append((name, file))
    return places


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return sorted(opened.keys())
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: {error}") from error


def _read_tensors(file: Path, wanted: dict[str, str]) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for target, name in wanted.items():
            tensor = opened.get_tensor(name)
            if tensor.dtype not in DTYPES:
                raise CheckpointError(
                    f"{file}: {name}: expected F32, F16 or BF16, got {tensor.dtype}"
                )
            yield target, tensor


def _require_names(
    directory: Path, expected: Iterable[str], got: Iterable[str], tied: bool
) -> None:
    missing, unexpected = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    problems = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if problems:
        message = f"{directory}: tensors that do not fit config.json: {'; '.join(problems)}"
        if missing == [LM_HEAD] and not tied:
            message += "\nhint: without lm_head.weight, tie_word_embeddings has to be true"
        raise CheckpointError(message)


def _require_same_head(head: Entry, embedding: Entry) -> None:
    (_, one), (_, other) = (
        next(_read_tensors(entry.file, {entry.name: entry.name})) for entry in (head, embedding)
    )
    if one.dtype != other.dtype or not torch.equal(one, other):
        raise CheckpointError(
            f"{head.file}: tie_word_embeddings is true, but {head.name} differs from "
            f"{embedding.name}"
        )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
