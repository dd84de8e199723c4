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
