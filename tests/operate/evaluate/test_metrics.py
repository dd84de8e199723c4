"""The metrics, against values worked out by hand."""

from math import log2
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from sidecar.operate.evaluate.data import Candidates, Data, Reranking, Retrieval, Similarity
from sidecar.operate.evaluate.metrics import Outputs, metrics_of, row_products, spearman


def figures(data: Data, outputs: Outputs) -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics_of(data, outputs)}


def test_retrieval() -> None:
    """Retrieval metrics match hand-computed values for two queries."""
    qrels = {"a": {"x": 1}, "b": {"z": 1, "gone": 1}}
    data = Retrieval("t", {"a": "", "b": ""}, qrels, Path(), dict.fromkeys("xyz"))
    queries = [[1.0, 0.0], [0.0, 1.0]]
    documents = [[0.8, 0.6], [0.6, 0.8], [0.0, -1.0]]
    found = figures(data, np.array(queries + documents, np.float32))
    ideal = 1 + 1 / log2(3)
    assert found == {
        "Recall@10": pytest.approx((1 + 1 / 2) / 2),
        "MRR@10": pytest.approx((1 + 1 / 3) / 2),
        "NDCG@10": pytest.approx((1 + 1 / log2(4) / ideal) / 2),
    }


def test_only_ten_documents_count() -> None:
    """A document in the eleventh place counts as not found."""
    documents = {f"d{number:02}": None for number in range(11)}
    data = Retrieval("t", {"a": ""}, {"a": {"d10": 1}}, Path(), documents)
    vectors = [[1.0], *([1 - number / 100] for number in range(11))]
    assert set(figures(data, np.array(vectors, np.float32)).values()) == {0.0}


def test_reranking() -> None:
    """Reranking metrics match hand-computed values for hits in second and fourth place."""
    labels = {"w": 0, "x": 1, "y": 0, "z": 1}
    data = Reranking("t", {"a": Candidates("", ("", "", "", ""), labels)})
    found = figures(data, np.array([[0.9], [0.8], [0.7], [0.6]], np.float32))
    gain, ideal = 1 / log2(3) + 1 / log2(5), 1 + 1 / log2(3)
    assert found == {
        "NDCG@5": pytest.approx(gain / ideal),
        "MAP": pytest.approx((1 / 2 + 2 / 4) / 2),
        "P@5": pytest.approx(2 / 5),
    }


def test_similarity() -> None:
    """Spearman's correlation of four values, two swapped, is 1 - 6 * 2 / (4 * 15)."""
    data = Similarity("t", (("", ""),) * 4, (1.0, 2.0, 3.0, 4.0))
    first = np.ones((4, 1))
    second = np.array([[0.1], [0.3], [0.2], [0.4]])
    outputs = np.concatenate([first, second]).astype(np.float32)
    assert figures(data, outputs) == {"Spearman": pytest.approx(0.8)}


def test_no_order_has_no_correlation() -> None:
    """The correlation of constant values is 0, without a warning."""
    assert spearman(np.ones(3), np.arange(3.0)) == 0.0


def test_row_products_are_cosines() -> None:
    """The products of rows of unit length are their cosines."""
    a = np.array([[1, 0], [0.6, 0.8]], np.float32)
    assert row_products(a, a[::-1]) == pytest.approx([0.6, 0.6])


def test_equal_scores_are_put_in_order_by_lot() -> None:
    """Ties are broken at random, so that an id gives no advantage."""
    outputs = np.ones((900, 1), np.float32)  # a sigmoid that is saturated everywhere
    for relevant in ("a", "z"):
        labels = {relevant: 1, "m": 0, "n": 0}
        each = Candidates("", ("", "", ""), labels)
        found = figures(Reranking("t", {str(n): each for n in range(300)}), outputs)
        assert found["MAP"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=0.05)


def test_all_metrics_see_one_order_of_equal_scores() -> None:
    """All metrics see the same order of tied documents."""
    ids = dict.fromkeys("abcdef")
    qrels = {str(number): {"a": 1} for number in range(50)}
    data = Retrieval("t", dict.fromkeys(qrels, ""), qrels, Path(), ids)
    metrics = {m.name: m for m in metrics_of(data, np.ones((56, 1), np.float32))}
    (reciprocal,), (gain,) = metrics["MRR@10"].samples, metrics["NDCG@10"].samples
    assert len(set(reciprocal)) == len(ids)
    assert gain == pytest.approx(1 / np.log2(1 + 1 / reciprocal))


def test_the_lots_of_one_query_do_not_depend_on_the_scores_of_another() -> None:
    """Changing one query's scores does not change how ties are broken for another."""
    each = Candidates("", ("", "", ""), {"a": 1, "b": 0, "c": 0})
    data = Reranking("t", {str(number): each for number in range(50)})
    ties = np.ones((150, 1), np.float32)
    other = ties.copy()
    other[0] = 2
    (tied,), (mixed,) = (metrics_of(data, scores)[1].samples for scores in (ties, other))
    assert mixed[0] == 1
    assert list(mixed[1:]) == list(tied[1:])


def test_the_cuts_are_at_ten_and_at_five() -> None:
    """The last place within a metric's cutoff counts, and the next does not."""
    ids = dict.fromkeys(f"d{number:02}" for number in range(20))
    for place in (9, 10):
        data = Retrieval("t", {"a": ""}, {"a": {f"d{place:02}": 1}}, Path(), ids)
        vectors = [[1.0], *([1 - number / 100] for number in range(20))]
        found = figures(data, np.array(vectors, np.float32))
        counts = place == 9
        assert found["Recall@10"] == counts
        assert found["MRR@10"] == pytest.approx(counts / 10)
        assert found["NDCG@10"] == pytest.approx(counts / log2(11))
    labels = {f"c{number}": int(number in {4, 5}) for number in range(8)}
    data = Reranking("t", {"a": Candidates("", ("",) * 8, labels)})
    found = figures(data, np.arange(8, 0, -1, dtype=np.float32)[:, None])
    ideal = 1 + 1 / log2(3)
    assert found["P@5"] == pytest.approx(1 / 5)
    assert found["NDCG@5"] == pytest.approx(1 / log2(6) / ideal)
    assert found["MAP"] == pytest.approx((1 / 5 + 2 / 6) / 2)


def test_each_query_has_its_own_candidates_and_documents() -> None:
    """Each query is scored on its own candidates, and samples are in the order of queries."""
    queries = {
        "a": Candidates("", ("", ""), {"x": 1, "y": 0}),
        "b": Candidates("", ("", "", ""), {"x": 0, "y": 0, "z": 1}),
        "c": Candidates("", ("",), {"x": 1}),
    }
    scores = np.array([[0.9], [0.1], [0.5], [0.4], [0.3], [0.0]], np.float32)
    metrics = {m.name: m for m in metrics_of(Reranking("t", queries), scores)}
    (precision,) = metrics["MAP"].samples
    assert precision == pytest.approx([1, 1 / 3, 1])
    qrels = {"q1": {"d1": 1}, "q0": {"d0": 1}}
    data = Retrieval("t", {"q1": "", "q0": ""}, qrels, Path(), dict.fromkeys(["d0", "d1"]))
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    (reciprocal,) = {m.name: m for m in metrics_of(data, vectors)}["MRR@10"].samples
    assert reciprocal == pytest.approx([1 / 2, 1])


def test_a_query_that_finds_nothing_counts_as_nothing() -> None:
    """A query that finds nothing enters the mean as 0."""
    qrels = {"a": {"x": 1}, "b": {"gone": 1}}
    data = Retrieval("t", {"a": "", "b": ""}, qrels, Path(), dict.fromkeys("xy"))
    found = figures(data, np.array([[1.0], [1.0], [0.9], [0.1]], np.float32))
    assert set(found.values()) == {0.5}


def test_more_relevant_documents_gain_more() -> None:
    """NDCG weights documents by their grade."""
    ids, qrels = dict.fromkeys("xy"), {"a": {"x": 2, "y": 1}}
    data = Retrieval("t", {"a": ""}, qrels, Path(), ids)
    best = figures(data, np.array([[1.0], [0.9], [0.1]], np.float32))
    worse = figures(data, np.array([[1.0], [0.1], [0.9]], np.float32))
    assert best["NDCG@10"] == pytest.approx(1)
    assert worse["NDCG@10"] == pytest.approx((1 + 2 / log2(3)) / (2 + 1 / log2(3)))
