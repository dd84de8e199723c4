"""Whether two figures differ by more than chance: a paired bootstrap over queries. Pure.

The same queries are drawn for both sides, so what makes a query hard for both cancels out of the
difference (Efron and Tibshirani 1993, chapter 13: the percentile interval).
"""

import numpy as np

from sidecar.operate.evaluate.evaluation import Difference
from sidecar.operate.evaluate.metrics import Metric, Samples

RESAMPLES = 2_000
CONFIDENCE = 0.95
_SEED = 20_211  # the same data give the same interval
_DIGITS = 12  # beyond these are rounding errors from the order of summation, not differences


def difference(exact: Metric, own: Metric) -> Difference:
    """Return how far `own` is from `exact`: one metric on the same queries, in the same order."""
    from scipy.stats import bootstrap  # noqa: PLC0415 - slow; bad data are refused first

    sides = len(exact.samples)

    def statistic(*samples: Samples) -> float:
        change = own.statistic(*samples[sides:]) - exact.statistic(*samples[:sides])
        return round(change, _DIGITS)

    value = statistic(*exact.samples, *own.samples)
    found = bootstrap(
        (*exact.samples, *own.samples),
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    relative = value / exact.value if exact.value > 0 else None
    return Difference(value, float(found.low), float(found.high), relative)
