"""What a row costs: a straight line through the rows that were measured. Pure.

A model's attention grows with the square of a row's length, but for the lengths that models
take the line is within a fifth of every row, and it stays sane beyond what was measured.
"""

from collections.abc import Iterable
from typing import TypeAlias

Sample: TypeAlias = tuple[int, float]
"""One row that was computed: its tokens, and the seconds for which it kept a thread busy."""

# About the last 256 rows count.
_KEPT = 1 - 1 / 256
_GUESS: tuple[Sample, ...] = ((1, 0.001), (100, 0.01))
# As a share: what is less is the rounding of equal lengths.
_NO_SPREAD = 1e-9


class CostModel:
    """One model's seconds a row, `fixed + per_token * tokens`.

    Least squares, the recent rows before the older ones. The first samples, best of several
    lengths, are never forgotten: while all rows have one length, they keep the slope known.
    """

    def __init__(self, first: Iterable[Sample] = _GUESS) -> None:
        self._first = [sum(terms) for terms in zip(*(_terms(*one) for one in first), strict=True)]
        self._recent = [0.0] * len(self._first)
        self.fixed: float
        self.per_token: float
        self._fit()

    def record(self, tokens: int, seconds: float) -> None:
        """Take note of a row that was computed."""
        new = _terms(tokens, seconds)
        self._recent = [_KEPT * old + term for old, term in zip(self._recent, new, strict=True)]
        self._fit()

    def microseconds(self, tokens: int) -> int:
        """Return what a row of `tokens` keeps one thread busy for, at least 1."""
        seconds = self.fixed + self.per_token * tokens
        return max(1, round(1e6 * seconds))

    def to_map(self) -> dict[str, float]:
        """Return what `status` says of it."""
        return {
            "fixed_ms": round(1e3 * self.fixed, 4),
            "per_token_ms": round(1e3 * self.per_token, 4),
        }

    def _fit(self) -> None:
        terms = (first + recent for first, recent in zip(self._first, self._recent, strict=True))
        weight, rows, tokens, pace, seconds = terms
        spread = weight * tokens - rows * rows
        # Rows of one length say nothing of what a token costs, and all of what a row does.
        known = spread > _NO_SPREAD * rows * rows
        self.per_token = (weight * seconds - rows * pace) / spread if known else 0.0
        self.fixed = (pace - rows * self.per_token) / weight
        # Noise may tilt the line so far that it predicts time out of nothing.
        if self.per_token < 0:
            self.per_token, self.fixed = 0.0, pace / weight
        elif self.fixed < 0:
            self.per_token, self.fixed = seconds / tokens, 0.0


def _terms(tokens: int, seconds: float) -> tuple[float, ...]:
    """Return what the normal equations add up for a row, whose weight is 1 / tokens.

    Unweighted, the noise of long rows would drown what is known of short ones. A row of no
    tokens counts as one of one.
    """
    tokens = max(1, tokens)
    return 1 / tokens, 1.0, tokens, seconds / tokens, seconds
