"""PURE: many numbers → their percentiles, in bounded memory.

Exact for up to 10,000 numbers. Beyond that they are counted in bins whose widths grow with
their values, so that a percentile is within 1 % of the true one (DDSketch: Masson, Rim and Lee,
VLDB 2019). Counts, sums and extremes stay exact.
"""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

_MOST_EXACT = 10_000
_ERROR = 0.01
_LOG_RATIO = np.log((1 + _ERROR) / (1 - _ERROR))


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of a field's numbers; if `estimated`, percentiles are only within 1 %."""

    count: float
    sum: float
    mean: float
    p50: float
    p95: float
    p99: float
    max: float
    estimated: bool


class Distribution:
    """Numbers, each weighted by the events that it represents."""

    def __init__(self) -> None:
        self.count = 0.0
        self.sum = 0.0
        self.least, self.greatest = inf, -inf
        self.values, self.weights = array("d"), array("d")
        self.bins: defaultdict[tuple[int, int], float] = defaultdict(float)

    def add(self, value: float, weight: float = 1.0) -> None:
        """Add a finite number."""
        self.values.append(value)
        self.weights.append(weight)
        self.count += weight
        self.sum += value * weight
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        self._fold_if_many()

    def merge(self, other: "Distribution") -> None:
        """Add all numbers of `other`."""
        self.values.extend(other.values)
        self.weights.extend(other.weights)
        self.count += other.count
        self.sum += other.sum
        self.least = min(self.least, other.least)
        self.greatest = max(self.greatest, other.greatest)
        for key, weight in other.bins.items():
            self.bins[key] += weight
        self._fold_if_many()

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return the quantiles at `shares`, each from 0 to 1.

        Exact, unweighted numbers are interpolated linearly, as in numpy.
        """
        values, weights = self._points()
        if not self.bins and (weights == 1).all():
            return [float(value) for value in np.quantile(values, shares)]
        order = np.argsort(values)
        reached = np.cumsum(weights[order])
        places = np.searchsorted(reached, np.array(shares) * reached[-1]).clip(max=len(order) - 1)
        return [float(value) for value in values[order][places]]

    def summary(self) -> Summary:
        """Return the summary of the numbers; there must be at least one."""
        p50, p95, p99 = self.quantiles((0.50, 0.95, 0.99))
        return Summary(
            count=self.count,
            sum=self.sum,
            mean=self.sum / self.count,
            p50=p50,
            p95=p95,
            p99=p99,
            max=self.greatest,
            estimated=bool(self.bins),
        )

    def _points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        keys = np.array(list(self.bins), dtype=float).reshape(-1, 2)
        with np.errstate(over="ignore"):  # the end of the last bin may overflow
            ends = np.exp(keys[:, 1] * _LOG_RATIO)
        middles = keys[:, 0] * (1 - _ERROR) * ends  # within 1 % of both ends
        values = np.concatenate([middles.clip(self.least, self.greatest), self.values])
        return values, np.concatenate([list(self.bins.values()), self.weights])

    def _fold_if_many(self) -> None:
        if len(self.values) <= _MOST_EXACT:
            return
        values, weights = np.array(self.values), np.array(self.weights)
        signs = np.sign(values).astype(int)
        sizes = np.abs(values, where=signs != 0, out=np.ones_like(values))
        indexes = np.ceil(np.log(sizes) / _LOG_RATIO).astype(int)
        for sign, index, weight in zip(signs.tolist(), indexes.tolist(), weights, strict=True):
            self.bins[sign, index] += weight
        del self.values[:], self.weights[:]
