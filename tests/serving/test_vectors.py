import numpy as np
import pytest

from sidecar.serving.vectors import Finish, best_first, cosines


def test_a_vector_of_zeros_stays_one():
    """Nothing is divided by zero."""
    assert not Finish(4, normalize=True)(np.zeros(4, np.float32)).any()


def test_the_result_is_float32():
    """Whatever it is divided by."""
    assert Finish(2, normalize=True)(np.ones(4, np.float32)).dtype == np.float32


def test_a_vector_that_is_too_short_is_an_error():
    """Half a vector is never passed on."""
    with pytest.raises(ValueError, match=r"not \[4\]"):
        Finish(4, normalize=False)(np.ones(3, np.float32))


def test_a_score_does_not_depend_on_the_other_documents():
    """Bit for bit, in any company."""
    rng = np.random.default_rng(3)
    query = rng.normal(size=384).astype(np.float32)
    documents = rng.normal(size=(33, 384)).astype(np.float32)
    together = cosines(query, documents)
    alone = [cosines(query, document[None])[0] for document in documents]
    assert together.tobytes() == np.array(alone).tobytes()


def test_ties_go_by_index():
    """The order is the same every time."""
    assert best_first(np.array([1, 3, 1, 3], np.float32)) == [1, 3, 0, 2]
