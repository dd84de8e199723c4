"""What counts as a difference in the matrix."""

import numpy as np

from .case import GRAPH, Outcome, refused
from .compare import distance


def test_a_vector_differs_by_direction_length_shape_and_nan() -> None:
    """A cosine below 0.99999, another length, another shape and NaN are reported."""
    vector = np.array([0.6, 0.8, 0.0], np.float32)
    near, far = (vector + np.array([0, 0, off], np.float32) for off in (0.004, 0.005))
    assert distance(vector, vector, "embed", "x") == ""
    assert distance(near, vector, "embed", "x") == ""
    for other in (far, 1.001 * vector, vector[:2], vector * np.float32("nan"), 0 * vector):
        assert distance(other, vector, "embed", "x").startswith("x: ")


def test_a_score_differs_by_more_than_one_in_ten_thousand() -> None:
    """Scores within 1e-4 count as equal; larger differences and NaN are reported."""
    score = np.array([0.5], np.float32)
    assert distance(score + np.float32(9e-5), score, "rerank", "x") == ""
    assert distance(score + np.float32(2e-4), score, "rerank", "x").startswith("x: ")
    assert distance(score * np.float32("nan"), score, "rerank", "x").startswith("x: ")


def test_an_outcome_meets_what_names_its_reason() -> None:
    """A refusal matches by part of its message, and never matches another way of serving."""
    assert Outcome("refused", "a folder: 2 labels are too many").meets(refused("2 labels"))
    assert not Outcome("refused", "a folder: no weights").meets(refused("2 labels"))
    assert not Outcome("library").meets(GRAPH)
    assert not Outcome("DIFFERENT", "graph: cosine 0.5").meets(GRAPH)
