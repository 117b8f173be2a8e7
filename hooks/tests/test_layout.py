"""Layouts reorder and drop copies, and refuse what does not fit."""

import pytest
import torch
from torch import Tensor

from layerdiff_hooks import LayerdiffError
from layerdiff_hooks.layout import Surroundings, absent_mask, lay_out

SMALL = torch.finfo(torch.float32).min
COUNT = torch.arange(24.0)


def laid_out(value: Tensor, layout: str | None, *expected: int) -> Tensor:
    return lay_out(value, layout, Surroundings(expected))[0]


def test_layouts_put_tokens_first() -> None:
    value = COUNT.view(1, 2, 3, 4)
    assert torch.equal(laid_out(value, "heads_first", 3, 2, 4), value[0].transpose(0, 1))
    assert torch.equal(laid_out(COUNT.view(1, 3, 8), "split_heads", 3, 2, 4), COUNT.view(3, 2, 4))
    assert torch.equal(laid_out(COUNT.view(6, 4), "token_rows", 3, 2, 4), COUNT.view(3, 2, 4))
    columns = COUNT.view(1, 4, 6)
    assert torch.equal(laid_out(columns, "channels_first", 2, 4), columns[0, :, 4:].T)
    assert torch.equal(laid_out(columns, "conv_state", 4, 3), columns[0, :, 3:])


def test_equal_halves_are_kept_once_and_others_refused() -> None:
    half = COUNT.view(1, 6, 4)
    assert torch.equal(laid_out(torch.cat([half, half], -1), "first_half", 6, 4), half[0])
    with pytest.raises(LayerdiffError, match="halves of the last dimension differ"):
        laid_out(torch.cat([half, half + 1], -1), "first_half", 6, 4)


def test_copies_of_a_key_head_are_kept_once_and_others_refused() -> None:
    heads = COUNT.view(1, 2, 3, 4)
    copies = heads.repeat_interleave(3, dim=1)
    assert torch.equal(laid_out(copies, "key_heads_first", 3, 2, 4), heads[0].transpose(0, 1))
    with pytest.raises(LayerdiffError, match="copies of a key head differ"):
        laid_out(heads.repeat(1, 3, 1, 1), "key_heads_first", 3, 2, 4)
    with pytest.raises(LayerdiffError, match="not a multiple of 4"):
        laid_out(copies, "key_heads_first", 3, 4, 4)


@pytest.mark.parametrize("forbidden", [SMALL, float("-inf")])
def test_a_mask_that_is_added_and_a_boolean_one_are_the_same_set(forbidden: float) -> None:
    allowed = torch.tensor([[True, False], [True, True]])
    added = torch.zeros(2, 2).masked_fill(~allowed, forbidden)
    for value in (allowed, added):
        stored = laid_out(value.expand(1, 3, 2, 2), "mask", 2, 2)
        assert stored.dtype == torch.uint8
        assert stored.tolist() == [[1, 0], [1, 1]]


def test_masks_that_are_no_set_or_differ_between_heads_are_refused() -> None:
    with pytest.raises(LayerdiffError, match="other values than 0 and minus infinity"):
        laid_out(torch.full((1, 1, 2, 2), -1.0), "mask", 2, 2)
    with pytest.raises(LayerdiffError, match="heads have different masks"):
        laid_out(torch.tensor([True, False]).view(1, 2, 1, 1), "mask", 1, 1)


@pytest.mark.parametrize(
    ("tokens", "kernel_masks", "known"),
    [(1, False, True), (1, True, True), (3, False, True), (3, True, False)],
)
def test_an_absent_mask_allows_all_unless_the_kernel_masks(
    tokens: int, kernel_masks: bool, known: bool
) -> None:
    mask = absent_mask(Surroundings((tokens, 3), kernel_masks=kernel_masks))
    assert (mask is not None and bool(mask.all())) == known


def test_scores_are_derived_only_where_the_mask_replaces_something() -> None:
    value = torch.tensor([[[1.0, SMALL]]])[None]
    near = Surroundings((1, 1, 2), allowed=torch.tensor([[1, 0]], dtype=torch.uint8))
    stored, derived = lay_out(value, "scores", near)
    assert (stored.tolist(), derived) == ([[[1.0, float("-inf")]]], True)
    near = Surroundings((1, 1, 2), allowed=torch.tensor([[1, 1]], dtype=torch.uint8))
    stored, derived = lay_out(value, "scores", near)
    assert (stored.tolist(), derived) == ([[[1.0, SMALL]]], False)
    with pytest.raises(LayerdiffError, match="without a mask"):
        laid_out(value, "scores", 1, 1, 2)


@pytest.mark.parametrize(
    ("shape", "layout", "expected", "message"),
    [
        ((2, 3), None, (3,), r"expected a batch of 1, got shape \[2, 3\]"),
        ((), None, (), "expected a batch of 1"),
        ((1, 3), None, (4,), r"expected shape \[4\], got \[3\]"),
        ((1, 3, 4), "heads_first", (3, 4), r"expected shape \[3, 4\], got \[4, 3\]"),
        ((1, 3, 5), "split_heads", (3, 2, 2), "layout 'split_heads' does not fit"),
        ((1, 3), "sideways", (3,), "unknown layout 'sideways'"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    shape: tuple[int, ...], layout: str | None, expected: tuple[int, ...], message: str
) -> None:
    with pytest.raises(LayerdiffError, match=message):
        laid_out(torch.zeros(shape), layout, *expected)
