"""Whether two figures differ by more than chance: a paired bootstrap over queries. Pure.

The same queries are drawn for both sides, so what makes a query hard for both falls out of the
difference (Efron and Tibshirani 1993, chapter 13: the percentile interval).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from sidecar.operate.evaluate.metrics import Metric, Samples

RESAMPLES = 2_000
CONFIDENCE = 0.95
_SEED = 20_211  # the same data, the same interval


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure less that of FP32, and between what it lies in `CONFIDENCE` of all draws."""

    value: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether these data cannot tell the two sides apart."""
        return self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """What may be said of it, in words."""
        if self.within_noise:
            return "within noise"
        return "better" if self.value > 0 else "worse"


def difference(exact: Metric, own: Metric) -> Difference:
    """Return how far `own` is from `exact`: one metric on the same queries, in the same order."""
    sides = len(exact.samples)

    def of(*samples: Samples) -> float:
        return own.statistic(*samples[sides:]) - exact.statistic(*samples[:sides])

    found = bootstrap(
        (*exact.samples, *own.samples),
        of,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Difference(own.value - exact.value, float(found.low), float(found.high))
