"""8-bit weights that every processor multiplies exactly.

AVX2 has no instruction that accumulates u8 x s8 products in 32 bits. Its instruction adds the
products of two neighbouring inputs in 16 bits and saturates at 2^15. With activations up to 255,
this cannot happen if the magnitudes of the pair's two weights add up to at most 128:
255 * 128 < 2^15. In trained layers, fewer than two pairs in a thousand exceed this; both of their
weights are reduced. Dot-product instructions (VNNI, AMX, Arm's) have no such limit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32
from sidecar.encoder.rounding import Float64, round_columns

_MOST = 127
_PAIR_MOST = 128
# Candidate integers for a row's largest weight. With 64 no pair needs to be reduced; larger values
# give smaller steps.
_PEAKS = (64, 72, 81, 91, 102, 114, _MOST)
_TINY = 1e-12  # a row of zeros needs a nonzero scale, too


def round_pairs(weight: Float32, gram: Float32, scales: Float32, *, saturates: bool) -> Float64:
    """Return `weight` with every column rounded to the grid of `scales`, float64 [out, in].

    Uses `round_columns`, in order of decreasing inputs per pair: the error of the first pair can be
    compensated by all others, that of the last by none.
    """
    order = _largest_first(np.diag(gram))
    grid = _Grid(scales, saturates=saturates)
    columns = round_columns(weight[:, order], gram[np.ix_(order, order)], grid.rounded)
    return columns[:, np.argsort(order)]


def _largest_first(importance: Float32) -> NDArray[np.int64]:
    """Return the columns with pairs in order of decreasing summed importance.

    A column without a partner comes last.
    """
    paired = len(importance) // 2 * 2
    sums = importance[:paired].reshape(-1, 2).sum(axis=1)
    first = 2 * np.argsort(-sums, kind="stable")
    rest = np.arange(paired, len(importance))
    return np.concatenate([np.stack([first, first + 1], axis=1).ravel(), rest])


class _Grid:
    """The grid of a layer's weights: integers within ±127 times `scales`, float32 [out]."""

    def __init__(self, scales: Float32, *, saturates: bool) -> None:
        self._scales = scales
        self._saturates = saturates
        self._first = np.zeros(scales.shape)

    def rounded(self, j: int, rest: Float64) -> Float64:
        """Return column j rounded within its pair's limits; see `round_columns`."""
        wanted = rest[0] / self._scales
        bound = self._bound(j, wanted, rest)
        integers = np.rint(np.clip(wanted, -bound, bound))
        self._first = np.abs(integers)
        rounded: Float64 = integers * self._scales
        return rounded

    def _bound(self, j: int, wanted: Float64, rest: Float64) -> Float64:
        most = np.full(wanted.shape, float(_MOST))
        if not self._saturates or (j % 2 == 0 and len(rest) == 1):
            return most
        if j % 2:
            bound: Float64 = np.minimum(most, _PAIR_MOST - self._first)
        else:
            # Clipped first: no weight is reduced for a partner that compensation for other columns
            # has pushed beyond the grid.
            first, second = np.minimum(np.abs([wanted, rest[1] / self._scales]), _MOST)
            bound = first - _excess(first, second)
        return bound


def scales_of(weight: Float32, importance: Float32, *, saturates: bool) -> Float32:
    """Return the scale of each row of `weight` that minimises its error, float32 [out].

    `importance`, float32 [in], weights the squared errors by input.
    """
    peak = np.maximum(np.abs(weight).max(axis=1), _TINY)
    if not saturates:
        full: Float32 = (peak / _MOST).astype(np.float32)
        return full
    candidates = [(peak / most).astype(np.float32) for most in _PEAKS]
    errors = [
        np.square(_restored(weight, scales, saturates=True) - weight) @ importance
        for scales in candidates
    ]
    best: Float32 = np.choose(np.argmin(errors, axis=0), candidates)
    return best


def nearest(weight: Float32, *, saturates: bool) -> Float32:
    """Return `weight`, float32 [out, in], with every number rounded to its row's grid."""
    scales = scales_of(weight, np.ones(weight.shape[1], np.float32), saturates=saturates)
    return _restored(weight, scales, saturates=saturates)


def _restored(weight: Float32, scales: Float32, *, saturates: bool) -> Float32:
    wanted = np.clip(weight / scales[:, np.newaxis], -_MOST, _MOST)
    if saturates:
        pairs = wanted.shape[1] // 2 * 2
        first, second = wanted[:, 0:pairs:2], wanted[:, 1:pairs:2]
        excess = _excess(first, second)
        first -= np.copysign(excess, first)
        second -= np.copysign(excess, second)
    restored: Float32 = np.rint(wanted) * scales[:, np.newaxis]
    return restored


def _excess(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Return how far to reduce the magnitudes of each of two weights within ±127.

    It is never more than either magnitude.
    """
    excess: NDArray[Any] = np.maximum(np.abs(first) + np.abs(second) - _PAIR_MOST, 0) / 2
    return excess
