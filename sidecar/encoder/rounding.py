"""Rounding weights to a grid: to the nearest point, or guided by the layer's inputs.

The latter is GPTQ, Frantar et al., 2022 (arXiv:2210.17323): columns are rounded in turn, and the
error of each is compensated in the columns not yet rounded, using the inverse of the inputs'
second moments.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32

Float64: TypeAlias = NDArray[np.float64]

# Added to the diagonal, as a fraction of its mean, so that inputs that are always zero do not make
# the matrix singular.
_DAMPING = 0.01
_INVERTED_AT_ONCE = 128
_TINY = 1e-12  # a row of zeros needs a nonzero scale, too


def quantize_rows(matrix: Float32, largest: int) -> tuple[NDArray[np.int8], Float32]:
    """Return int8 [n, d] in ±`largest` and float32 scales [n, 1] with rows * scales ≈ matrix."""
    scales = row_scales(matrix, largest)
    rows = np.clip(np.rint(matrix / scales), -largest, largest).astype(np.int8)
    return rows, scales


def row_scales(matrix: Float32, largest: int) -> Float32:
    """Return the scale that maps each row of `matrix` to ±`largest`, float32 [n, 1]."""
    peak = np.abs(matrix).max(axis=1, keepdims=True)
    scales: Float32 = (np.maximum(peak, _TINY) / largest).astype(np.float32)
    return scales


def round_columns(
    weight: Float32, gram: Float32, rounded: Callable[[int, Float64], Float64], block: int = 32
) -> Float64:
    """Return `weight` with every column rounded to its grid, float64 [out, in].

    `gram` is X.T @ X of the layer's inputs, [in, in]. `rounded(j, rest)` returns the nearest grid
    points of column j, float64 [out]; it is called once per column, in order. `rest`, float64
    [in - j, out], holds the columns from j on, compensated for the errors of earlier ones. Its
    first column is always up to date; all of them are if j is a multiple of `block`.
    """
    # Transposed, so that each column is contiguous.
    rest = weight.T.astype(np.float64, order="C")
    upper = _inverse_factor(gram)
    grid = np.empty_like(rest)
    for start in range(0, len(rest), block):
        end = min(start + block, len(rest))
        errors = np.empty_like(rest[start:end])
        for j in range(start, end):
            grid[j] = rounded(j, rest[j:])
            errors[j - start] = (rest[j] - grid[j]) / upper[j, j]
            rest[j:end] -= upper[j, j:end, np.newaxis] * errors[j - start]
        rest[end:] -= upper[start:end, end:].T @ errors
    return grid.T


def _inverse_factor(gram: Float32) -> Float64:
    """Return the upper Cholesky factor of the inverse of the damped matrix A.

    A itself is not inverted. With rows and columns reversed, it has a lower factor; reversing that
    gives an upper U with U @ U.T = A, and the inverse of U is the result.
    """
    turned = gram[::-1, ::-1].astype(np.float64)
    diagonal = np.diag_indices_from(turned)
    turned[diagonal] += _DAMPING * turned[diagonal].mean() + np.finfo(np.float32).tiny
    lower = np.asarray(np.linalg.cholesky(turned), np.float64)
    del turned
    return _inverse_of_upper(lower[::-1, ::-1])


def _inverse_of_upper(upper: Float64) -> Float64:
    """Return the inverse of an upper triangular matrix, by recursion on its quadrants."""
    if len(upper) <= _INVERTED_AT_ONCE:
        return np.triu(np.linalg.inv(upper))
    half = len(upper) // 2
    inverse = np.zeros(upper.shape)
    inverse[:half, :half] = _inverse_of_upper(upper[:half, :half])
    inverse[half:, half:] = _inverse_of_upper(upper[half:, half:])
    inverse[:half, half:] = -inverse[:half, :half] @ upper[:half, half:] @ inverse[half:, half:]
    return inverse
