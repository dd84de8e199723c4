"""Column-by-column rounding, checked against a plain GPTQ and the optimum."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from sidecar.encoder.rounding import quantize_rows, round_columns, row_scales

from .by_hand import Float64, Random, rounded_by_hand

STEP = 0.25


def to_steps(_: int, rest: Float64) -> Float64:
    return np.rint(rest[0] / STEP) * STEP


def correlated(rows: int, inputs: int, seed: int = 2) -> np.ndarray:
    """Return low-rank inputs, like a real layer's, in channels of very different magnitudes."""
    draw = Random(seed)
    x = draw.array(rows, max(2, inputs // 3)) @ draw.array(max(2, inputs // 3), inputs)
    return (x + 0.3 * draw.array(rows, inputs)) * np.geomspace(0.5, 3, inputs).astype(np.float32)


def error(x: np.ndarray, weight: np.ndarray, grid: np.ndarray) -> float:
    return float(np.square(x @ (grid - weight).T).sum())


@pytest.mark.parametrize("inputs", [1, 5, 32, 33, 64, 77, 150, 263])
def test_columns_are_rounded_as_gptq_has_it(inputs: int) -> None:
    """Rounding equals plain GPTQ for any number of columns, within or across blocks."""
    weight, x = Random(inputs).array(6, inputs), correlated(2 * inputs, inputs)
    expected = rounded_by_hand(weight, x.T @ x, to_steps)
    moved = np.abs(expected - weight).max() > STEP / 2  # before it was rounded
    assert moved == (inputs > 1)
    np.testing.assert_array_equal(round_columns(weight, x.T @ x, to_steps), expected)


def test_what_is_left_of_a_weight_is_up_to_date_where_a_block_begins() -> None:
    """Every column is passed once, in order; the rest is up to date at the start of a block."""
    weight, x = Random(1).array(3, 50), correlated(90, 50)
    seen: list[list[Float64]] = [[], []]

    def keep(of: list[Float64]) -> Callable[[int, Float64], Float64]:
        def rounded(j: int, rest: Float64) -> Float64:
            assert j == len(of)
            assert len(rest) == 50 - j
            of.append(rest.copy())
            return to_steps(j, rest)

        return rounded

    rounded_by_hand(weight, x.T @ x, keep(seen[0]))
    round_columns(weight, x.T @ x, keep(seen[1]), block=8)
    for j, (expected, rest) in enumerate(zip(*seen, strict=True)):
        whole = len(rest) if j % 8 == 0 else 1
        np.testing.assert_allclose(rest[:whole], expected[:whole], atol=1e-5, err_msg=str(j))


def test_rounding_lies_between_the_best_and_the_nearest() -> None:
    """GPTQ's error lies between that of the best of all roundings and that of the nearest."""
    weight, x = Random(5).array(20, 9), correlated(60, 9)
    below = np.floor(weight / STEP) * STEP
    ways = np.array(list(product([0.0, STEP], repeat=9)))
    best = sum(
        min(error(x, row[np.newaxis], (low + ways[i])[np.newaxis]) for i in range(len(ways)))
        for row, low in zip(weight, below, strict=True)
    )
    nearest = error(x, weight, np.rint(weight / STEP) * STEP)
    found = error(x, weight, round_columns(weight, x.T @ x, to_steps))
    assert best < 0.2 * nearest  # there is something to find
    assert best <= found < 0.8 * nearest


def test_inputs_that_never_moved_are_rounded_to_the_nearest() -> None:
    """Weights of inputs that are always zero are rounded to nearest; no matrix is singular."""
    weight, x = Random(3).array(4, 40), correlated(80, 40)
    nearest = np.rint(weight / STEP) * STEP
    for idle in (np.arange(40), np.arange(0, 40, 3)):
        x[:, idle] = 0
        grid = round_columns(weight, x.T @ x, to_steps)
        np.testing.assert_array_equal(grid[:, idle], nearest[:, idle])


@pytest.mark.parametrize("largest", [1, 64, 127])
def test_rows_are_brought_to_their_own_peak(largest: int) -> None:
    """Each number is rounded to its row's nearest step, and the row's peak is the last step."""
    matrix = Random(4).array(9, 33) * np.geomspace(1e-3, 1e3, 9, dtype=np.float32)[:, np.newaxis]
    matrix[4] = 0
    matrix[5] = -np.abs(matrix[5])
    rows, scales = quantize_rows(matrix, largest)
    assert rows.dtype == np.int8
    assert (scales == row_scales(matrix, largest)).all()
    for row, scale, integers in zip(matrix, scales[:, 0], rows, strict=True):
        if not row.any():
            assert not integers.any()
            continue
        np.testing.assert_allclose(scale, max(abs(each) for each in row) / largest, rtol=1e-6)
        assert [round(float(each) / float(scale)) for each in row] == integers.tolist()
        assert np.abs(integers).max() == largest
