"""What one call of a model asks for, and whether a trace can hold it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerdiff_hooks.errors import LayerdiffError

# What the argument is called that holds the cache: from Transformers 5.24 on, and before.
CACHES = ("cache", "past_key_values")


@dataclass(frozen=True)
class Call:
    """The token ids of one call, and how many tokens its cache had seen before."""

    token_ids: list[int]
    past: int


def read_call(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """Read a model's arguments.

    Raises:
        LayerdiffError: a batch of more than one, padding, a custom mask or custom positions,
            embeddings in place of token ids, or a cached call of more than one token.
    """
    try:
        given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise LayerdiffError(f"the model cannot be called like this: {error}") from None
    given = {**given, **given.get("kwargs", {})}
    ids = given.get("input_ids")
    if not isinstance(ids, Tensor) or given.get("inputs_embeds") is not None:
        raise LayerdiffError("a trace records token ids: call the model with input_ids")
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise LayerdiffError(
            f"expected input_ids of shape [1, tokens], got {list(ids.shape)}",
            "a trace holds one prompt after the other: call the model once for each",
        )
    if ids.shape[1] == 0:
        raise LayerdiffError("input_ids has no tokens")
    cache = next((given[name] for name in CACHES if given.get(name) is not None), None)
    past = int(cache.get_seq_length()) if cache is not None else 0
    if past and ids.shape[1] != 1:
        raise LayerdiffError(
            f"a cached call decodes one token, got {ids.shape[1]}",
            "feed the prompt in one call, then one token at a time",
        )
    _refuse_masks(given.get("attention_mask"))
    _refuse_positions(given.get("position_ids"), past, ids.shape[1])
    return Call([int(i) for i in ids[0].tolist()], past)


def with_cache(model: nn.Module, cache: object) -> dict[str, object]:
    """The argument that gives a model its cache, by the name that its version has for it."""
    named = inspect.signature(model.forward).parameters
    return {next((name for name in CACHES if name in named), CACHES[-1]): cache}


def _refuse_masks(mask: object) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise LayerdiffError("a prepared attention mask cannot be recorded; leave it out")
    if not bool((mask != 0).all()):
        raise LayerdiffError(
            "the attention mask hides padding tokens", "pass one prompt without padding"
        )


def _refuse_positions(positions: object, past: int, tokens: int) -> None:
    if positions is None:
        return
    usual = torch.arange(past, past + tokens)
    if not isinstance(positions, Tensor) or not bool((positions.cpu() == usual).all()):
        raise LayerdiffError(
            f"position_ids are not {past} to {past + tokens - 1}", "leave them out"
        )
