"""Histograms in constant memory, whose buckets are each 4.4 % wider than the last. Pure.

There are 16 buckets per octave, so every power of two is a bound, and a quantile is at most 4.4 %
too high and never too low. They range from 2⁻¹⁰ to 2²¹: in milliseconds, from a microsecond to
half an hour. Values outside are counted in the outermost buckets; sum and maximum stay exact.
"""

from array import array
from math import ceil, log2
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PER_OCTAVE = 16
_LOWEST, _HIGHEST = -10, 21  # octaves, by their upper bounds
_LEAST = 2.0**_LOWEST
_OCTAVES = range(_LOWEST, _HIGHEST + 1)
_SIZE = _PER_OCTAVE * len(_OCTAVES)
# The indexes of the first bucket in use, and of the one whose upper bound is 1.
_FIRST = _PER_OCTAVE - 1
_ONE = _FIRST - _PER_OCTAVE * _LOWEST
_BOUNDS = 2.0 ** ((np.arange(_SIZE) - _ONE) / _PER_OCTAVE)
_PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Histogram:
    """The distribution of non-negative values, in any unit."""

    __slots__ = ("_buckets", "_counts", "largest", "sum")

    def __init__(self) -> None:
        # One memory, two views: an array increments faster, numpy adds and sums faster.
        self._buckets = array("Q", bytes(8 * _SIZE))
        self._counts: NDArray[np.uint64] = np.frombuffer(self._buckets, np.uint64)
        self.sum: float = 0.0
        self.largest: float = 0.0

    def record(self, value: float) -> None:
        """Count one value."""
        bucket = ceil(_PER_OCTAVE * log2(value)) + _ONE if value > _LEAST else _FIRST
        try:
            self._buckets[bucket] += 1
        except IndexError:
            self._buckets[-1] += 1
        self.sum += value
        if value > self.largest:  # noqa: PLR1730 - `max` takes as long as everything above
            self.largest = value

    def add(self, other: "Histogram") -> None:
        """Add the counts of `other`."""
        self._counts += other._counts  # noqa: SLF001 - of its own class
        self.sum += other.sum
        self.largest = max(self.largest, other.largest)

    @property
    def count(self) -> int:
        """The number of recorded values."""
        return int(self._counts.sum())

    def quantile(self, share: float) -> float:
        """Return the value that `share` (0 to 1) of the values do not exceed; 0 without values."""
        cumulative = self._counts.cumsum()
        rank = max(1.0, share * float(cumulative[-1]))
        bucket = min(int(np.searchsorted(cumulative, rank)), _SIZE - 1)
        # The last bucket is bounded only by the largest value.
        return self.largest if bucket == _SIZE - 1 else min(float(_BOUNDS[bucket]), self.largest)

    def octaves(self) -> list[tuple[float, int]]:
        """Return `(bound, count)` per octave: values up to `bound`, but above half of it.

        Octaves without values are left out.
        """
        counts = self._counts.reshape(-1, _PER_OCTAVE).sum(axis=1).tolist()
        pairs = zip(_OCTAVES, counts, strict=True)
        return [(2.0**octave, count) for octave, count in pairs if count]

    def to_map(self) -> dict[str, Any]:
        """Return the distribution as `status` reports it."""
        count = self.count
        quantiles = {name: round(self.quantile(share), 3) for name, share in _PERCENTILES.items()}
        return {
            "count": count,
            "sum": round(self.sum, 3),
            "mean": round(self.sum / count, 3) if count else 0.0,
            **quantiles,
            "max": self.largest,
            "buckets": [list(pair) for pair in self.octaves()],
        }
