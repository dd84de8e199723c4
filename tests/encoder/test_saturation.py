"""Pairs of weights that share 8 bits, checked against a computation pair by pair."""

from pathlib import Path

import numpy as np
import pytest

from sidecar.encoder.saturation import nearest, round_pairs, scales_of
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder

from .by_hand import Float64, Random, rounded_by_hand

PEAKS = (64, 72, 81, 91, 102, 114, 127)


def give_way(first: float, second: float) -> tuple[float, float]:
    """Return a pair reduced to add up to 128 at most: both magnitudes shrink equally."""
    first, second = (float(np.clip(each, -127, 127)) for each in (first, second))
    excess = max(abs(first) + abs(second) - 128, 0) / 2
    return tuple(np.sign(w) * max(abs(w) - excess, 0) for w in (first, second))  # type: ignore[return-value]


def restored(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return `weight` rounded to its rows' grids; a weight without a partner is limited to 127."""
    grid = np.empty(weight.shape)
    for i, j in np.ndindex(grid.shape):
        wanted, start = weight[i] / scales[i], j - j % 2
        pair = wanted[start : start + 2]
        given = give_way(*pair)[j % 2] if len(pair) == 2 else np.clip(wanted[j], -127, 127)
        grid[i, j] = np.rint(given) * scales[i]
    return grid


def spread(outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    """Return rows that resemble trained ones: a few weights are much larger than the rest."""
    weight = Random(seed).array(outputs, inputs)
    return (weight * np.abs(weight)).astype(np.float32)


def pair_sums(integers: np.ndarray) -> np.ndarray:
    pairs = integers.shape[1] // 2 * 2
    return np.abs(integers[:, 0:pairs:2]) + np.abs(integers[:, 1:pairs:2])


@pytest.mark.parametrize("inputs", [1, 2, 10, 31])
def test_scales_leave_the_least_error_of_all(inputs: int) -> None:
    """Each row's scale is the one of seven candidates with the least weighted error."""
    weight, draw = spread(40, inputs), Random(7)
    weight[3] = 0
    importance = np.square(draw.array(inputs, size=2)) + np.float32(0.01)
    taken = set()
    scales = scales_of(weight, importance, saturates=True)
    for row, scale in zip(weight, scales, strict=True):
        tried = [np.float32(max(np.abs(row).max(), 1e-12) / most) for most in PEAKS]
        grids = restored(np.tile(row, (7, 1)), np.array(tried))
        errors = np.square(grids - row) @ importance
        assert scale in tried
        assert errors[tried.index(scale)] == pytest.approx(errors.min(), rel=1e-3)
        taken.add(tried.index(scale))
    assert len(taken) > (3 if inputs > 2 else 0)
    if inputs > 2:
        assert (scales != scales_of(weight, np.ones(inputs, np.float32), saturates=True)).any()


def test_scales_take_all_of_eight_bits_where_nothing_saturates() -> None:
    weight = spread(5, 20)
    weight[2] = 0
    expected = np.maximum(np.abs(weight).max(axis=1), 1e-12) / 127
    scales = scales_of(weight, np.ones(20, np.float32), saturates=False)
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    grid = nearest(weight, saturates=False)
    np.testing.assert_allclose(
        grid, np.rint(weight / expected[:, np.newaxis]) * expected[:, np.newaxis], rtol=1e-5
    )


@pytest.mark.parametrize("inputs", [1, 10, 31])
def test_the_nearest_of_a_pair_is_where_both_give_way_alike(inputs: int) -> None:
    weight = spread(30, inputs, seed=1)
    scales = scales_of(weight, np.ones(inputs, np.float32), saturates=True)
    np.testing.assert_allclose(
        nearest(weight, saturates=True), restored(weight, scales), atol=1e-5 * np.abs(weight).max()
    )


@pytest.mark.parametrize("saturates", [True, False])
@pytest.mark.parametrize("inputs", [2, 16, 37])
def test_pairs_are_rounded_largest_inputs_first(inputs: int, saturates: bool) -> None:
    """Pairs are rounded by GPTQ in order of decreasing inputs, each within its limit."""
    weight, x = spread(12, inputs, seed=3), Random(4).array(2 * inputs, inputs)
    x *= 1 + np.abs(Random(5).array(inputs))  # so that pairs are not already in order
    gram = x.T @ x
    scales = (np.abs(weight).max(axis=1) / 127).astype(np.float32)
    weighs = [(gram[j, j] + gram[j + 1, j + 1], j) for j in range(0, inputs - 1, 2)]
    order = [each for _, j in sorted(weighs, reverse=True) for each in (j, j + 1)]
    order += [inputs - 1] * (inputs % 2)
    first = np.zeros(12)

    def rounded(j: int, rest: Float64) -> Float64:
        nonlocal first
        wanted, integers = rest / scales, np.empty(12)
        for row in range(12):
            own = np.clip(wanted[0, row], -127, 127)
            if saturates and j % 2:
                bound = min(127, 128 - abs(first[row]))
                own = np.clip(own, -bound, bound)
            elif saturates and len(rest) > 1:
                own, _ = give_way(*wanted[:2, row])
            integers[row] = round(own)
        first = np.abs(integers)
        return integers * scales

    expected = np.empty(weight.shape)
    expected[:, order] = rounded_by_hand(weight[:, order], gram[np.ix_(order, order)], rounded)
    found = round_pairs(weight, gram, scales, saturates=saturates)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert saturates == (pair_sums(np.rint(found / scales[:, np.newaxis])).max() <= 128)


def test_what_a_pair_may_add_up_to_is_the_most_that_sixteen_bits_hold() -> None:
    """The limit of a pair is the largest that keeps AVX2's 16-bit sum exact at 255."""
    weight = np.sign(Random(6).array(30, 21)) * np.float32(1)
    scales = np.full(30, 1 / 127, np.float32)
    found = round_pairs(weight, np.eye(21, dtype=np.float32), scales, saturates=True)
    integers = np.rint(found * 127)
    most = pair_sums(integers).max()
    assert 255 * most < 2**15 <= 255 * (most + 1)
    assert pair_sums(integers).min() == most
    assert (np.abs(integers[:, -1]) == 127).all()  # the last one has no partner


def test_large_pairs_saturate_nowhere_however_they_are_pushed() -> None:
    """Large pairs stay within their limits even if compensation pushes them far beyond."""
    draw = Random(8)
    weight = draw.array(40, 65)
    x = draw.array(30, 9) @ draw.array(9, 65) + 0.05 * draw.array(30, 65)
    for most in (20, 64, 127):
        scales = (np.abs(weight).max(axis=1) / most / 3).astype(np.float32)
        found = round_pairs(weight, x.T @ x, scales, saturates=True) / scales[:, np.newaxis]
        np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
        assert np.abs(np.rint(found)).max() <= 127
        assert pair_sums(np.rint(found)).max() <= 128


def test_few_pairs_of_a_trained_model_give_way(minilm_folder: Path) -> None:
    """In MiniLM, at most two pairs in a thousand are reduced, and steps shrink by a third."""
    encoder = read_encoder(minilm_folder, describe(minilm_folder))
    for layer in (encoder.layers[0], encoder.layers[5]):
        for linear in (layer.query_key_value, layer.attention_output, layer.up, layer.down):
            ones = np.ones(linear.weight.shape[1], np.float32)
            scales = scales_of(linear.weight, ones, saturates=True)
            sums = pair_sums(linear.weight / scales[:, np.newaxis])
            assert 0.0005 < (sums > 128).mean() < 0.002
            assert 85 < (np.abs(linear.weight).max(axis=1) / scales).mean() < 110
