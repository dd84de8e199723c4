import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire.errors import BackendFailed
from client_lib.wire.messages import PRECISIONS
from sidecar.serving.postprocess import Postprocess, best_first, cosines, quantize


def unit(rows, dimensions, seed=4):
    rows = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("precision", PRECISIONS)
@given(rows=st.integers(1, 9), dimensions=st.integers(1, 40))
def test_a_row_has_the_same_bytes_alone_and_among_others(precision, rows, dimensions):
    """A row has the same bytes alone and among others, in every precision."""
    vectors = unit(rows, dimensions)
    together = quantize(vectors, precision)
    for index in range(rows):
        assert (
            quantize(vectors[index : index + 1], precision).tobytes() == together[index].tobytes()
        )


def test_float32_is_not_touched():
    """float32 vectors are returned as they are, without a copy."""
    vectors = unit(2, 8)
    assert quantize(vectors, "float32") is vectors


@pytest.mark.parametrize("dimensions", [8, 60, 384])
def test_bits_are_those_of_sentence_transformers(dimensions):
    """Binary precisions set a bit per positive number, and pad the last byte."""
    vectors = unit(20, dimensions)
    vectors[:, 3] = 0
    bits = np.packbits(vectors > 0, axis=-1)
    assert np.array_equal(quantize(vectors, "ubinary"), bits)
    assert np.array_equal(quantize(vectors, "binary"), bits.astype(np.int16) - 128)
    assert quantize(vectors, "binary").dtype == np.int8


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [64, 384])
def test_precisions_are_quantize_embeddings(dimensions):
    """Bits, and integers with a fixed range, equal those of the library, up to rounding."""
    library = pytest.importorskip("sentence_transformers.util.quantization")
    vectors = unit(200, dimensions)
    for precision in ("binary", "ubinary"):
        expected = library.quantize_embeddings(vectors, precision)
        assert expected.dtype == quantize(vectors, precision).dtype
        assert np.array_equal(quantize(vectors, precision), expected)
    step = 1 / (16 * np.sqrt(dimensions))
    ranges = np.outer([-128.5 * step, 126.5 * step], np.ones(dimensions))
    for precision in ("int8", "uint8"):
        expected = library.quantize_embeddings(vectors, precision, ranges=ranges)
        mine = quantize(vectors, precision)
        assert expected.dtype == mine.dtype
        assert np.abs(mine.astype(int) - expected).max() <= 1
        assert np.mean(mine != expected) < 1e-3


@given(rows=st.integers(1, 5), dimensions=st.integers(1, 500), scale=st.floats(0.1, 4))
def test_precisions_are_their_formulas(rows, dimensions, scale):
    """int8, uint8 and float16 equal their formulas bit for bit; halves round to even."""
    vectors = unit(rows, dimensions) * np.float32(scale)
    steps = np.clip(np.round(vectors * np.float32(16 * np.sqrt(dimensions))), -128, 127)
    for precision, expected in (
        ("int8", steps.astype(np.int8)),
        ("uint8", (steps + 128).astype(np.uint8)),
        ("float16", vectors.astype(np.float16)),
    ):
        made = quantize(vectors, precision)
        assert made.dtype == expected.dtype
        assert np.array_equal(made, expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_vector_is_cut_and_then_scaled(normalize):
    """A vector is truncated first, and then scaled to length 1 if requested."""
    vector = np.random.default_rng(2).normal(size=12).astype(np.float32)
    cut = vector[:5]
    expected = cut / np.linalg.norm(cut) if normalize else cut
    np.testing.assert_allclose(Postprocess(5, normalize)(vector), expected, rtol=1e-6)
    whole = Postprocess(12, normalize)(vector)
    np.testing.assert_allclose(whole, vector / np.linalg.norm(vector) if normalize else vector)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_an_error(normalize, number):
    """A kept number, or a length, that is not finite raises `BackendFailed`."""
    vector = np.ones(4, np.float32)
    vector[2] = number
    with pytest.raises(BackendFailed, match="not finite"):
        Postprocess(3, normalize)(vector)
    assert np.isfinite(Postprocess(2, normalize)(vector)).all()
    large = np.full(4, 3e38, np.float32)
    with np.errstate(over="ignore"), pytest.raises(BackendFailed):
        Postprocess(4, normalize=True)(large)
    assert np.array_equal(Postprocess(4, normalize=False)(large), large)


def test_integers_keep_zero_and_saturate():
    """Integer precisions saturate at the ends of their range and map zero to zero."""
    vector = np.zeros((1, 256), np.float32)
    vector[0, :3] = 1, -1, 1 / 256
    assert quantize(vector, "int8")[0, :4].tolist() == [127, -128, 1, 0]
    assert quantize(vector, "uint8")[0, :4].tolist() == [255, 0, 129, 128]


def test_integers_keep_cosines_and_their_order():
    """The int8 dot product over 256 d is the cosine within 0.01, and keeps nearest neighbours."""
    vectors = unit(300, 384)
    exact = vectors @ vectors.T
    levels = quantize(vectors, "int8").astype(np.int32)
    np.testing.assert_allclose(levels @ levels.T / (256 * 384), exact, atol=0.01)
    nearest, kept = (np.argsort(-scores)[:, 1:11] for scores in (exact, levels @ levels.T))
    overlap = [len({*a} & {*b}) / 10 for a, b in zip(nearest, kept, strict=True)]
    assert np.mean(overlap) > 0.95


def test_a_vector_of_zeros_stays_one():
    """Normalising a vector of zeros leaves it as it is."""
    assert not Postprocess(4, normalize=True)(np.zeros(4, np.float32)).any()


def test_the_result_is_float32():
    """Normalised vectors are float32."""
    assert Postprocess(2, normalize=True)(np.ones(4, np.float32)).dtype == np.float32


def test_a_vector_that_is_too_short_is_an_error():
    """A vector shorter than the requested dimensions raises an error."""
    with pytest.raises(ValueError, match=r"not \[4\]"):
        Postprocess(4, normalize=False)(np.ones(3, np.float32))


def test_a_score_does_not_depend_on_the_other_documents():
    """A document's score is the same bits whatever other documents it is scored with."""
    rng = np.random.default_rng(3)
    query = rng.normal(size=384).astype(np.float32)
    documents = rng.normal(size=(33, 384)).astype(np.float32)
    together = cosines(query, documents)
    alone = [cosines(query, document[None])[0] for document in documents]
    assert together.tobytes() == np.array(alone).tobytes()
    np.testing.assert_allclose(together, documents @ query, rtol=1e-4, atol=1e-4)


def test_ties_go_by_index():
    """Equal scores are ordered by index, however many there are."""
    assert best_first(np.array([1, 3, 1, 3], np.float32)) == [1, 3, 0, 2]
    assert best_first(np.repeat(np.float32([1, 2]), 100)) == [*range(100, 200), *range(100)]
