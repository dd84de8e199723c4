"""Quantized embedding tables, checked against a computation group by group."""

import numpy as np
import pytest

from sidecar.encoder.tables import Int4Table, int4_table, int8_table

from .by_hand import Random

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def table_of(rows: int, hidden: int) -> np.ndarray:
    """Return rows and channels of very different magnitudes, with a row and a channel of zeros."""
    draw = Random(hidden)
    table = draw.array(rows, hidden) * np.exp(draw.array(hidden)) * np.exp(draw.array(rows, 1))
    table[2], table[:, 7] = 0, 0
    return table.astype(np.float32)


def integers_of(group: np.ndarray, scale: float) -> np.ndarray:
    return np.clip([round(float(each)) for each in group / scale], -8, 7)


def error_of(group: np.ndarray, scale: float) -> float:
    return float(np.square(integers_of(group, scale) * scale - group).sum())


@pytest.mark.parametrize(("hidden", "size"), [(64, 64), (96, 48), (130, 26), (62, 62), (8, 8)])
def test_a_groups_scale_leaves_the_least_error_of_all(hidden: int, size: int) -> None:
    """Each group's float16 scale is the best of seven candidates, after normalising channels."""
    table = table_of(12, hidden)
    quantized = int4_table(table)
    channels = np.sqrt(np.square(table.astype(np.float64)).mean(axis=0)) + 1e-12
    np.testing.assert_allclose(quantized.channels, channels, rtol=1e-5)
    assert quantized.scales.dtype == np.float16
    assert quantized.scales.shape == (12, hidden // size)
    integers = unpacked(quantized)
    chosen = set()
    for row, group in np.ndindex(quantized.scales.shape):
        own = slice(group * size, (group + 1) * size)
        values = (table[row] / channels)[own]
        if not values.any():
            assert not integers[row, own].any()
            continue
        tried = [np.abs(values).max() * clip / 7.5 for clip in CLIPS]
        scale = float(quantized.scales[row, group])
        nearest = int(np.argmin([abs(each / scale - 1) for each in tried]))
        assert scale == pytest.approx(tried[nearest], rel=1e-3)
        least = min(error_of(values, each) for each in tried)
        assert error_of(values, tried[nearest]) == pytest.approx(least, rel=1e-3)
        assert integers[row, own].tolist() == integers_of(values, scale).tolist()
        chosen.add(nearest)
    assert len(chosen) > 2


def unpacked(table: Int4Table) -> np.ndarray:
    """Return the integers: low halves are a row's first half, and 8 represents 0."""
    rows = table.packed.tolist()
    return np.array([[b % 16 for b in row] + [b // 16 for b in row] for row in rows]) - 8


def test_what_is_looked_up_in_four_bits_is_what_was_packed() -> None:
    table = table_of(9, 96)
    quantized = int4_table(table)
    assert quantized.packed.nbytes == table.size / 2
    scales = np.repeat(quantized.scales.astype(np.float64), 48, axis=1)
    expected = unpacked(quantized) * scales * quantized.channels
    np.testing.assert_allclose(quantized.dense(), expected, rtol=1e-5)


def test_four_bits_are_between_the_best_and_whole_ranges() -> None:
    """Clipping reduces a group's error, and finer candidates would hardly reduce it further."""
    table = Random(5).array(30, 64)
    channels = np.sqrt(np.square(table).mean(axis=0))
    found = whole = best = 0.0
    for row in table / channels:
        peak = float(np.abs(row).max())
        whole += error_of(row, peak / 7.5)
        best += min(error_of(row, peak * clip / 7.5) for clip in np.linspace(0.5, 1.1, 61))
    found = float(np.square((int4_table(table).dense() - table) / channels).sum())
    assert best < found < 0.93 * whole
    assert found < 1.05 * best


def test_eight_bits_are_the_nearest_of_a_rows_own_steps() -> None:
    table = table_of(9, 30)
    quantized = int8_table(table)
    for row, integers, scale in zip(table, quantized.rows, quantized.scales[:, 0], strict=True):
        if row.any():
            assert scale == pytest.approx(np.abs(row).max() / 127, rel=1e-6)
            assert integers.tolist() == [round(float(each)) for each in row / scale]
        else:
            assert not integers.any()
