"""Prompt files: one JSON object a line, `{"id", "category", "text"}`.

A line may bring `token_ids`, so that two engines get the same ones, and `forced_ids`, the
tokens to decode in place of the model's own choice.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.writer import require_prompt_id


@dataclass(frozen=True)
class Prompt:
    """One line of a prompt file."""

    id: str
    category: str | None
    text: str | None
    token_ids: list[int] | None
    forced_ids: list[int] | None


def read_prompts(path: Path, wanted: Sequence[str] = ()) -> list[Prompt]:
    """Read a prompt file; `wanted` ids keep the order of the file.

    Raises:
        LayerdiffError: no such file, a malformed line, an id twice, or a wanted one missing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LayerdiffError(f"cannot read prompts {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LayerdiffError(f"prompts {path}: not UTF-8 at byte {error.start}") from error
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        prompt = _parse(line, f"{path}:{number}")
        if prompt.id in prompts:
            raise LayerdiffError(f"{path}:{number}: a second prompt with id {prompt.id!r}")
        prompts[prompt.id] = prompt
    if not prompts:
        raise LayerdiffError(f"{path} has no prompts", 'write lines such as {"id":"a","text":"…"}')
    for name in wanted:
        if name not in prompts:
            close = difflib.get_close_matches(name, prompts, n=1, cutoff=0.0)
            raise LayerdiffError(f"{path} has no prompt {name!r}", f"did you mean {close[0]!r}?")
    return [prompt for prompt in prompts.values() if not wanted or prompt.id in wanted]


def _parse(line: str, place: str) -> Prompt:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise LayerdiffError(f"{place}: not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        raise LayerdiffError(f"{place}: expected an object with an id")
    try:
        require_prompt_id(data["id"])
    except LayerdiffError as error:
        raise LayerdiffError(f"{place}: {error.message}", error.hint) from None
    for key in ("category", "text"):
        if not isinstance(data.get(key), str | None):
            raise LayerdiffError(f"{place}: {key} is not a string")
    prompt = Prompt(
        id=data["id"],
        category=data.get("category"),
        text=data.get("text"),
        token_ids=_ids(data, "token_ids", place),
        forced_ids=_ids(data, "forced_ids", place),
    )
    if not prompt.text and prompt.token_ids is None:
        raise LayerdiffError(f"{place}: prompt {prompt.id!r} has neither text nor token_ids")
    if prompt.token_ids == []:
        raise LayerdiffError(f"{place}: prompt {prompt.id!r} has no tokens")
    return prompt


def _ids(data: dict[str, Any], key: str, place: str) -> list[int] | None:
    ids = data.get(key)
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise LayerdiffError(f"{place}: {key} is not an array of whole numbers")
    return ids


def token_ids(prompts: Sequence[Prompt], model_dir: Path, vocab: int) -> list[list[int]]:
    """The ids of each prompt: its own, or those of the directory's ``tokenizer.json``.

    No special tokens are added.

    Raises:
        LayerdiffError: the tokenizer is needed and cannot be read, a text has no tokens, or an
            id (a forced one too) is not below `vocab`.
    """
    tokenizer: Tokenizer | None = None
    found: list[list[int]] = []
    for prompt in prompts:
        ids = prompt.token_ids
        if ids is None:
            tokenizer = tokenizer or _tokenizer(model_dir)
            ids = tokenizer.encode(prompt.text or "", add_special_tokens=False).ids
        if not ids:
            raise LayerdiffError(f"prompt {prompt.id!r} has no tokens")
        for i in (*ids, *(prompt.forced_ids or ())):
            if not 0 <= i < vocab:
                raise LayerdiffError(
                    f"prompt {prompt.id!r}: token id {i} is not in the vocabulary of {vocab}",
                    "the prompts may be tokenized for another model",
                )
        found.append(ids)
    return found


def decoded(ids: Sequence[int], model_dir: Path) -> str | None:
    """The text of tokens, special ones included; None without a ``tokenizer.json``.

    Raises:
        LayerdiffError: the tokenizer cannot be read.
    """
    if not (model_dir / "tokenizer.json").is_file():
        return None
    return _tokenizer(model_dir).decode(list(ids), skip_special_tokens=False)


def _tokenizer(model_dir: Path) -> Tokenizer:
    path = model_dir / "tokenizer.json"
    if not path.is_file():
        raise LayerdiffError(
            f"{model_dir} has no tokenizer.json",
            "add it, or give each prompt its token_ids",
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise LayerdiffError(f"{path} is not a tokenizer: {error}") from error
