"""A model's outputs on judged data → the metrics, computed by trec_eval and scipy. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import ir_measures
import numpy as np
from ir_measures import AP, RR, P, R, nDCG
from numpy.typing import NDArray

from sidecar.operate.evaluate.data import Data, Reranking, Retrieval, Similarity

Outputs: TypeAlias = NDArray[np.float32]
"""Float32 [inputs, dimensions], unit vectors; for a cross-encoder [inputs, 1], scores."""
Samples: TypeAlias = NDArray[np.float64]
_Run: TypeAlias = Mapping[str, Mapping[str, float]]

_DEPTH = 100  # documents ranked per query: more than any cutoff below
_SEED = 20_212  # the same for every plan, so that no two differ by chance
_RETRIEVAL: dict[str, Any] = {"Recall@10": R @ 10, "MRR@10": RR @ 10, "NDCG@10": nDCG @ 10}
_RERANKING: dict[str, Any] = {"NDCG@5": nDCG @ 5, "MAP": AP, "P@5": P @ 5}


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure and the samples it is computed from, so that it can be computed on others.

    `samples` are float64 [queries] each, or [pairs]; `statistic` takes them and returns the
    figure.
    """

    name: str
    statistic: Callable[..., float]
    samples: tuple[Samples, ...]

    @property
    def value(self) -> float:
        """The figure on all samples."""
        return self.statistic(*self.samples)


def metrics_of(data: Data, outputs: Outputs) -> list[Metric]:
    """Return the metrics for `data`; `outputs` belong to its inputs, in the same order."""
    match data:
        case Retrieval():
            return list(_means(_RETRIEVAL, data.qrels, _search(data, outputs)))
        case Reranking():
            qrels = {query: each.labels for query, each in data.queries.items()}
            return list(_means(_RERANKING, qrels, _scores(data, outputs)))
        case Similarity():
            first, second = np.split(outputs, 2)
            scores = np.array(data.scores)
            return [Metric("Spearman", spearman, (scores, row_products(first, second)))]


def spearman(a: Samples, b: Samples) -> float:
    """Return Spearman's rank correlation; 0 if one side is constant."""
    if not np.ptp(a) or not np.ptp(b):
        return 0.0
    from scipy.stats import spearmanr  # noqa: PLC0415 - slow; bad data are refused first

    return float(spearmanr(a, b).statistic)


def row_products(a: Outputs, b: Outputs) -> Samples:
    """Return float64 [rows]: dot products of the rows of `a` and `b`; cosines of unit vectors."""
    products: Samples = np.einsum("ij,ij->i", a, b).astype(np.float64)
    return products


def _means(
    measures: Mapping[str, Any], qrels: Mapping[str, Mapping[str, int]], run: _Run
) -> Iterator[Metric]:
    places = {query: place for place, query in enumerate(qrels)}
    values = {measure: np.zeros(len(places)) for measure in measures.values()}
    for each in ir_measures.iter_calc(list(measures.values()), qrels, run):
        values[each.measure][places[each.query_id]] = each.value
    for name, measure in measures.items():
        yield Metric(name, _mean, (values[measure],))


def _mean(values: Samples) -> float:
    return float(values.mean())


def _search(data: Retrieval, vectors: Outputs) -> _Run:
    """Return each query's best documents, by an exact search for the greatest cosines."""
    queries, documents = vectors[: len(data.queries)], vectors[len(data.queries) :]
    ids, draws = list(data.documents), np.random.default_rng(_SEED)
    return {
        query: _ranked(ids, documents @ vector, draws, min(_DEPTH, len(ids)))
        for query, vector in zip(data.queries, queries, strict=True)
    }


def _scores(data: Reranking, scores: Outputs) -> _Run:
    """Return all candidates of each query, ranked by score."""
    ends = np.cumsum([len(each.documents) for each in data.queries.values()])
    parts, draws = np.split(scores[:, 0], ends[:-1]), np.random.default_rng(_SEED)
    return {
        query: _ranked(list(each.labels), part, draws, len(part))
        for (query, each), part in zip(data.queries.items(), parts, strict=True)
    }


def _ranked(
    ids: Sequence[str], scores: NDArray[np.float32], draws: np.random.Generator, depth: int
) -> dict[str, float]:
    """Return the first `depth` documents, with ranks for scores: the greater, the better.

    Equal scores, such as those of a saturated sigmoid, are put in random order. The libraries would
    order them by id, each in its own way, and ids often reveal a document's original position.
    """
    lots = draws.random(len(ids))
    least = np.partition(scores, -depth)[-depth]
    near = np.flatnonzero(scores >= least)
    order = near[np.lexsort((lots[near], -scores[near]))][:depth]
    return {ids[index]: float(depth - place) for place, index in enumerate(order)}
