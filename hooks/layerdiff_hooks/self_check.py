"""Proof that watching did not change the numbers: the same call again, without taps."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from layerdiff_hooks.calls import CACHES
from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.layout import bits


def differing_elements(one: Tensor, other: Tensor) -> int:
    """How many elements differ in their bits; all, where shapes or dtypes differ."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return max(one.numel(), other.numel())
    return int(torch.count_nonzero(bits(one) != bits(other)))


def independent_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments with a copy of the cache, which a call changes in place.

    Raises:
        LayerdiffError: the cache is part of a gradient graph and cannot be copied.
    """
    caches = {name: kwargs[name] for name in CACHES if kwargs.get(name) is not None}
    try:
        return {**kwargs, **copy.deepcopy(caches)}
    except RuntimeError as error:
        raise LayerdiffError(
            f"the cache cannot be copied for the self-check: {error}",
            "call the model under torch.no_grad()",
        ) from error


class SelfCheck:
    """Compares the logits of watched calls with those of the same calls unwatched."""

    def __init__(self) -> None:
        """Start with nothing compared."""
        self._elements = 0

    def compare(self, watched: Tensor, rerun: Callable[[], Tensor]) -> None:
        """Run the same call unwatched and compare bit for bit.

        Raises:
            LayerdiffError: they differ.
        """
        unwatched = rerun()
        mismatches = differing_elements(watched.detach(), unwatched.detach())
        if mismatches:
            raise LayerdiffError(
                f"self-check: {mismatches} of {watched.numel()} logits change when hooks are on",
                "nothing is written; the model may be random (dropout) or keep state",
            )
        self._elements += watched.numel()

    def report(self) -> dict[str, Any]:
        """The manifest's `self_check`."""
        return {
            "status": "bit-equal" if self._elements else "unmeasured",
            "evidence": [
                {
                    "what": "logits with hooks equal logits without",
                    "entry_point": "model.forward",
                    "elements": self._elements,
                    "mismatches": 0,
                }
            ],
        }


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output, whether it is a tuple or an object."""
    logits = output[0] if isinstance(output, tuple) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise LayerdiffError(f"no logits in the model's output, a {type(output).__name__}")
    return logits
