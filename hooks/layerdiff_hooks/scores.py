"""Which rows of attention's scores are captured.

A point with an axis of `tokens` and one of `context` grows faster than linearly in tokens. Of
long contexts some of its rows are kept. `src/model/scores.rs` has the same formula: two sides
must keep the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerdiff_hooks.errors import LayerdiffError

if TYPE_CHECKING:
    from torch import Tensor

LONG = 2048
ROWS = 64


@dataclass(frozen=True)
class Scores:
    """The rows that are kept of a step's query tokens.

    Attributes:
        most: of a step with more query tokens, that many are kept; None for all.
        beyond: only where the context is longer than this.
    """

    most: int | None
    beyond: int = 0

    def rows(self, tokens: int, context: int) -> list[int] | None:
        """Positions in the step of the kept query tokens, ascending; None where all are."""
        most = self.most
        if most is None or context <= self.beyond or tokens <= most:
            return None
        return [i * (tokens - 1) // (most - 1) for i in range(most)]


def parse_scores(text: str) -> Scores:
    """`all`, `rows:N` or `auto`.

    Raises:
        LayerdiffError: anything else.
    """
    if text == "all":
        return Scores(None)
    if text == "auto":
        return Scores(ROWS, LONG)
    kind, _, number = text.partition(":")
    if kind == "rows" and number.isdecimal() and int(number) >= 2:
        return Scores(int(number))
    raise LayerdiffError(
        f"unknown choice of attention's rows {text!r}",
        "give all, auto, or rows:N with N of at least 2",
    )


def has_rows(shape: Sequence[str]) -> bool:
    """True for a point of which some rows may be kept: by the description, not by name."""
    return "tokens" in shape and "context" in shape


def take_rows(value: "Tensor", rows: list[int] | None, tokens: int) -> "Tensor":
    """These rows of a value whose last two dimensions are tokens and context, or all where None.

    Raises:
        LayerdiffError: the value has another number of rows than there are tokens.
    """
    if rows is None:
        return value
    if value.ndim < 2 or value.shape[-2] != tokens:
        raise LayerdiffError(f"expected a row for each of {tokens} tokens, got {list(value.shape)}")
    return value[..., rows, :]
