"""How close a plan comes to FP32, measured on the probe texts."""

from collections.abc import Callable, Sequence

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.models.description import Task
from sidecar.models.manifest import Quality
from sidecar.models.probes import PASSAGES_PER_QUERY, probe_inputs
from sidecar.models.rows import Row, Text


def measure(
    task: Task,
    tokenize: Callable[[Sequence[Text]], list[Row]],
    reference: Callable[[Row], Float32],
    candidate: Callable[[Row], Float32],
) -> Quality:
    """Return the closeness of `candidate` to `reference`, each float32 [outputs] for a row.

    Both are run on the same rows. For a reranker the outputs are scores, not logits.
    """
    rows = tokenize(probe_inputs(task))
    exact = np.stack([reference(row) for row in rows])
    approximate = np.stack([candidate(row) for row in rows])
    if task == "embed":
        return _summary(_cosines(exact, approximate))
    return _summary(
        1 - np.abs(exact - approximate)[:, 0],
        rank_agreement(_by_query(exact), _by_query(approximate)),
    )


def rank_agreement(exact: Float32, approximate: Float32) -> float:
    """Return the share of document pairs of a query that both sides put in the same order.

    Both are scores, float32 [queries, documents]. It is (tau + 1) / 2 for Kendall's tau.
    """
    first, second = np.triu_indices(exact.shape[1], k=1)
    order = np.sign(exact[:, first] - exact[:, second])
    other = np.sign(approximate[:, first] - approximate[:, second])
    return float((order == other).mean())


def _by_query(scores: Float32) -> Float32:
    return scores.reshape(-1, PASSAGES_PER_QUERY)


def _cosines(a: Float32, b: Float32) -> Float32:
    norms: Float32 = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Float32 = (a * b).sum(axis=1) / norms
    return cosines


def _summary(closeness: Float32, agreement: float | None = None) -> Quality:
    return Quality(
        mean=round(float(closeness.mean()), 6),
        p1=round(float(np.percentile(closeness, 1)), 6),
        min=round(float(closeness.min()), 6),
        texts=len(closeness),
        rank_agreement=None if agreement is None else round(agreement, 4),
    )
