"""Distributions in little memory: counts by buckets that grow by 4.4 % each. Pure.

Sixteen buckets to the octave, so every power of two is a bound, and what is read off is at most
4.4 % above the truth and never below it. A bucket exists once a value has fallen into it: those
of a daemon's times are some dozens, whatever number of requests it has answered.
"""

from collections.abc import Iterator
from math import ceil, log2
from typing import Any

_PER_OCTAVE = 16
# Below it values differ in nothing that matters, and zero has no logarithm.
_LEAST = 2**-10
_PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Histogram:
    """How often values of 0 and more occurred, of any unit; `counts` by bucket."""

    __slots__ = ("counts", "largest", "sum")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.sum: float = 0.0
        self.largest: float = 0.0

    def record(self, value: float) -> None:
        """Count one value."""
        bucket = ceil(_PER_OCTAVE * log2(value)) if value > _LEAST else _LOWEST
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.sum += value
        self.largest = max(self.largest, value)

    def add(self, other: "Histogram") -> None:
        """Count all that `other` has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.sum += other.sum
        self.largest = max(self.largest, other.largest)

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float:
        """Return the value that `share` of the values, of 0 to 1, do not exceed; 0 of none."""
        rank, seen = share * self.count, 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(_bound(bucket), self.largest)
        return 0.0

    def octaves(self) -> Iterator[tuple[float, int]]:
        """Yield powers of two, and how many values lie between the one before and each."""
        counts: dict[int, int] = {}
        for bucket, count in self.counts.items():
            octave = -(-bucket // _PER_OCTAVE)
            counts[octave] = counts.get(octave, 0) + count
        for octave in sorted(counts):
            yield 2.0**octave, counts[octave]

    def to_map(self) -> dict[str, Any]:
        """Return what `status` says of it."""
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


def _bound(bucket: int) -> float:
    return float(2 ** (bucket / _PER_OCTAVE))


_LOWEST = ceil(_PER_OCTAVE * log2(_LEAST))
