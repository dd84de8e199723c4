"""Predict what a row costs: a straight line fitted to measured rows. Pure.

A model's attention grows with the square of a row's length, but for the lengths that models
accept the line is within a fifth of every row, and it extrapolates sanely.
"""

from collections.abc import Iterable
from typing import TypeAlias

Sample: TypeAlias = tuple[int, float]
"""One computed row: its tokens, and the seconds for which it kept a thread busy."""

# Exponential decay: about the last 256 rows count.
_KEPT = 1 - 1 / 256
_GUESS: tuple[Sample, ...] = ((1, 0.001), (100, 0.01))
# Relative; anything less is a rounding error among equal lengths.
_NO_SPREAD = 1e-9


class CostModel:
    """One model's seconds per row, `fixed + per_token * tokens`.

    Fitted by least squares, with recent rows weighted above older ones. The `first` samples, best
    of several lengths, are never forgotten: they determine the slope while all rows have one
    length.
    """

    def __init__(self, first: Iterable[Sample] = _GUESS) -> None:
        self._first = [sum(terms) for terms in zip(*(_terms(*one) for one in first), strict=True)]
        self._recent = [0.0] * len(self._first)
        self.fixed: float
        self.per_token: float
        self._fit()

    def record(self, tokens: int, seconds: float) -> None:
        """Record a computed row."""
        new = _terms(tokens, seconds)
        self._recent = [_KEPT * old + term for old, term in zip(self._recent, new, strict=True)]
        self._fit()

    def microseconds(self, tokens: int) -> int:
        """Return how long a row of `tokens` keeps one thread busy, in microseconds; at least 1."""
        seconds = self.fixed + self.per_token * tokens
        return max(1, round(1e6 * seconds))

    def to_map(self) -> dict[str, float]:
        """Return the model's entry in the `costs` of `status`."""
        return {
            "fixed_ms": round(1e3 * self.fixed, 4),
            "per_token_ms": round(1e3 * self.per_token, 4),
        }

    def _fit(self) -> None:
        terms = (first + recent for first, recent in zip(self._first, self._recent, strict=True))
        weight, rows, tokens, pace, seconds = terms
        spread = weight * tokens - rows * rows
        # Rows of a single length determine what a row costs, but not what a token does.
        known = spread > _NO_SPREAD * rows * rows
        self.per_token = (weight * seconds - rows * pace) / spread if known else 0.0
        self.fixed = (pace - rows * self.per_token) / weight
        # Noise may tilt the line so far that it predicts negative times.
        if self.per_token < 0:
            self.per_token, self.fixed = 0.0, pace / weight
        elif self.fixed < 0:
            self.per_token, self.fixed = seconds / tokens, 0.0


def _terms(tokens: int, seconds: float) -> tuple[float, ...]:
    """Return a row's terms of the normal equations, with weight 1 / tokens.

    Unweighted, the noise of long rows would drown out the short ones. A row without tokens counts
    as one of a single token.
    """
    tokens = max(1, tokens)
    return 1 / tokens, 1.0, tokens, seconds / tokens, seconds
