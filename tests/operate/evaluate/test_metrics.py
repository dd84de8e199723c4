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
    """One query finds its document first; the other finds one of its two, in third place."""
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
    """What stands in the eleventh place was not found."""
    documents = {f"d{number:02}": None for number in range(11)}
    data = Retrieval("t", {"a": ""}, {"a": {"d10": 1}}, Path(), documents)
    vectors = [[1.0], *([1 - number / 100] for number in range(11))]
    assert set(figures(data, np.array(vectors, np.float32)).values()) == {0.0}


def test_reranking() -> None:
    """Relevant candidates in the second and fourth place of four."""
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
    """Two of four neighbours in the other order: 1 - 6 * 2 / (4 * 15)."""
    data = Similarity("t", (("", ""),) * 4, (1.0, 2.0, 3.0, 4.0))
    first = np.ones((4, 1))
    second = np.array([[0.1], [0.3], [0.2], [0.4]])
    outputs = np.concatenate([first, second]).astype(np.float32)
    assert figures(data, outputs) == {"Spearman": pytest.approx(0.8)}


def test_no_order_has_no_correlation() -> None:
    """Where all values are one there is nothing to correlate, and no warning."""
    assert spearman(np.ones(3), np.arange(3.0)) == 0.0


def test_row_products_are_cosines() -> None:
    """Of rows with a length of one."""
    a = np.array([[1, 0], [0.6, 0.8]], np.float32)
    assert row_products(a, a[::-1]) == pytest.approx([0.6, 0.6])


def test_equal_scores_are_put_in_order_by_lot() -> None:
    """What is relevant gains nothing, and loses nothing, by its id."""
    outputs = np.ones((900, 1), np.float32)  # a sigmoid that has come to 1 everywhere
    for relevant in ("a", "z"):
        labels = {relevant: 1, "m": 0, "n": 0}
        each = Candidates("", ("", "", ""), labels)
        found = figures(Reranking("t", {str(n): each for n in range(300)}), outputs)
        assert found["MAP"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=0.05)


def test_all_metrics_see_one_order_of_equal_scores() -> None:
    """From the reciprocal of the place of the only relevant document follows its gain."""
    ids = dict.fromkeys("abcdef")
    qrels = {str(number): {"a": 1} for number in range(50)}
    data = Retrieval("t", dict.fromkeys(qrels, ""), qrels, Path(), ids)
    metrics = {m.name: m for m in metrics_of(data, np.ones((56, 1), np.float32))}
    (reciprocal,), (gain,) = metrics["MRR@10"].samples, metrics["NDCG@10"].samples
    assert len(set(reciprocal)) == len(ids)
    assert gain == pytest.approx(1 / np.log2(1 + 1 / reciprocal))


def test_the_lots_of_one_query_do_not_depend_on_the_scores_of_another() -> None:
    """So that a plan that puts one query's candidates otherwise differs there alone."""
    each = Candidates("", ("", "", ""), {"a": 1, "b": 0, "c": 0})
    data = Reranking("t", {str(number): each for number in range(50)})
    ties = np.ones((150, 1), np.float32)
    other = ties.copy()
    other[0] = 2
    (tied,), (mixed,) = (metrics_of(data, scores)[1].samples for scores in (ties, other))
    assert mixed[0] == 1
    assert list(mixed[1:]) == list(tied[1:])
