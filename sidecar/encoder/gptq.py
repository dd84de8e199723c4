"""Rounding weights so that the layer's output changes least, given what the layer is fed.

GPTQ, Frantar et al., 2022 (arXiv:2210.17323): columns are rounded one after the other, and
each one's error is made up for by the columns that are not rounded yet, by the inverse of the
inputs' second moments.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32

Float64: TypeAlias = NDArray[np.float64]

# Added to the diagonal, as a share of its mean: inputs that never moved must not make the
# matrix singular.
_DAMPING = 0.01
# Columns whose errors are passed on at once; a matter of speed, not of the result.
_BLOCK = 32


def round_columns(
    weight: Float32, gram: Float32, rounded: Callable[[int, Float64], Float64]
) -> Float64:
    """Return float64 [out, in]: `weight` with every column put on its grid.

    `gram` is X.T @ X of the layer's inputs, [in, in]. `rounded(j, column)` returns the nearest
    grid points of column j, float64 [out]; it is called once a column, in order, and sees the
    column with the errors of those before it.
    """
    # Columns as rows: each is worked on as a whole, and so it lies in one piece.
    rest = weight.T.astype(np.float64, order="C")
    upper = _inverse_factor(gram)
    grid = np.empty_like(rest)
    for start in range(0, len(rest), _BLOCK):
        end = min(start + _BLOCK, len(rest))
        errors = np.empty_like(rest[start:end])
        for j in range(start, end):
            grid[j] = rounded(j, rest[j])
            errors[j - start] = (rest[j] - grid[j]) / upper[j, j]
            rest[j:end] -= upper[j, j:end, np.newaxis] * errors[j - start]
        rest[end:] -= upper[start:end, end:].T @ errors
    return grid.T


def _inverse_factor(gram: Float32) -> Float64:
    """Return the upper Cholesky factor of the damped matrix's inverse."""
    damped = gram.astype(np.float64)
    diagonal = np.diag_indices_from(damped)
    damped[diagonal] += _DAMPING * damped[diagonal].mean() + np.finfo(np.float32).tiny
    factor: Float64 = np.linalg.cholesky(np.linalg.inv(damped)).T
    return factor
