"""From a value as Transformers holds it to the tensor that a point promises.

A layout takes the value without its batch dimension and returns the tensor in the shape of
the description, and whether that is *derived*: other numbers than those the engine goes on
with. Reordering, dropping copies and encoding a mask as a set do not make a tensor derived.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerdiff_hooks.errors import LayerdiffError


@dataclass(frozen=True)
class Surroundings:
    """What a layout may need beside the value.

    Attributes:
        expected: the point's shape in this step.
        allowed: the mask of the same attention call, U8 ``[tokens, context]``; None if unseen.
        kernel_masks: an absent mask leaves causality to the attention kernel, and does not
            mean that every token may look everywhere.
    """

    expected: tuple[int, ...]
    allowed: Tensor | None = None
    kernel_masks: bool = False


Layout = Callable[[Tensor, Surroundings], tuple[Tensor, bool]]


def bits(tensor: Tensor) -> Tensor:
    """The same bytes as integers, so that equality also holds for NaN and tells -0 from 0."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()])


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(bits(one), bits(other))


def plain(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """As it is."""
    return value, False


def first_half(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[..., 2n]`` with two equal halves → ``[..., n]``."""
    first, second = value.chunk(2, dim=-1)
    if not _same(first, second):
        raise LayerdiffError("the halves of the last dimension differ")
    return first, False


def split_heads(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[tokens, heads * dim]`` → ``[tokens, heads, dim]``."""
    return value.reshape(value.shape[0], near.expected[1], -1), False


def heads_first(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[heads, tokens, dim]`` → ``[tokens, heads, dim]``."""
    return value.transpose(0, 1), False


def token_rows(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[tokens * heads, dim]`` → ``[tokens, heads, dim]``."""
    return value.reshape(near.expected[0], -1, value.shape[-1]), False


def channels_first(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[channels, columns]`` → the last `tokens` columns as ``[tokens, channels]``.

    There are more columns than tokens where a convolution also sees what came before; the
    model drops them later.
    """
    return value[:, -near.expected[0] :].transpose(0, 1), False


def key_heads_first(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[value_heads, tokens, dim]``, equal within a key head → ``[tokens, key_heads, dim]``."""
    heads = near.expected[1]
    if value.shape[0] % heads:
        raise LayerdiffError(f"{value.shape[0]} heads are not a multiple of {heads}")
    groups = value.reshape(heads, -1, *value.shape[1:])
    first = groups[:, :1]
    if not _same(first.expand_as(groups), groups):
        raise LayerdiffError("the copies of a key head differ")
    return first[:, 0].transpose(0, 1), False


def exp(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """The exponential, in the precision of the value."""
    return value.exp(), True


def conv_state(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[channels, columns]``, oldest first → the last columns that the next step needs."""
    return value[:, value.shape[1] - near.expected[1] :], False


def mask(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[1 or heads, tokens, context]``, boolean or added to scores → U8, 1 where allowed."""
    if value.dtype == torch.bool:
        allowed = value
    else:
        allowed = value == 0
        if not (allowed | (value <= torch.finfo(value.dtype).min / 2)).all():
            raise LayerdiffError("the mask holds other values than 0 and minus infinity")
    if not (allowed == allowed[:1]).all():
        raise LayerdiffError("the heads have different masks")
    return allowed[0].to(torch.uint8), False


def masked_scores(value: Tensor, near: Surroundings) -> tuple[Tensor, bool]:
    """``[heads, tokens, context]``; minus infinity where the mask forbids.

    Derived where that replaces something: Transformers adds the least finite number instead.
    """
    if near.allowed is None:
        raise LayerdiffError("scores without a mask to tell which of them count")
    forbidden = near.allowed == 0
    stored = value.masked_fill(forbidden, float("-inf"))
    return stored, not _same(stored, value)


LAYOUTS: dict[str | None, Layout] = {
    None: plain,
    "state": plain,
    "first_half": first_half,
    "split_heads": split_heads,
    "heads_first": heads_first,
    "token_rows": token_rows,
    "channels_first": channels_first,
    "key_heads_first": key_heads_first,
    "exp": exp,
    "conv_state": conv_state,
    "mask": mask,
    "scores": masked_scores,
}
# The value has no batch dimension to drop.
UNBATCHED = frozenset({"token_rows"})


def absent_mask(near: Surroundings) -> Tensor | None:
    """The mask where the attention function got none: everything allowed, or None if unseen.

    A single query may look at everything, whoever masks.
    """
    if near.kernel_masks and near.expected[0] > 1:
        return None
    return torch.ones(near.expected, dtype=torch.uint8)


def lay_out(value: Tensor, layout: str | None, near: Surroundings) -> tuple[Tensor, bool]:
    """Drop the batch dimension, apply the layout and check the shape.

    The result may share memory with `value`.

    Raises:
        LayerdiffError: an unknown layout, a batch of more than one, a value that the layout
            does not fit, or another shape than the expected one.
    """
    if layout not in LAYOUTS:
        raise LayerdiffError(f"unknown layout {layout!r}")
    if layout not in UNBATCHED:
        if value.ndim == 0 or value.shape[0] != 1:
            raise LayerdiffError(f"expected a batch of 1, got shape {list(value.shape)}")
        value = value[0]
    try:
        stored, derived = LAYOUTS[layout](value, near)
    except (RuntimeError, IndexError) as error:
        raise LayerdiffError(
            f"layout {layout!r} does not fit a value of shape {list(value.shape)}: {error}"
        ) from error
    if tuple(stored.shape) != near.expected:
        raise LayerdiffError(f"expected shape {list(near.expected)}, got {list(stored.shape)}")
    return stored, derived
