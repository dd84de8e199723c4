"""Similarity of vectors, in numpy. Higher is more similar, so distances are negated."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from client_lib.compat.output import as_tensor

if TYPE_CHECKING:
    import torch

Floats: TypeAlias = NDArray[np.floating[Any]]
Pairwise: TypeAlias = Callable[[Floats, Floats], Floats]

_TINY = 1e-12  # keeps zero vectors at zero


def similarity(name: str, a: Any, b: Any) -> "torch.Tensor | Floats":
    """Return the scores [n, m] of every vector in `a` [n, d] or [d] with every one in `b`.

    The result is a tensor, as in sentence-transformers, or an array if torch is not installed.
    """
    rows, columns = np.atleast_2d(_floats(a)), np.atleast_2d(_floats(b))
    if name in _PRODUCTS:
        prepare = _PRODUCTS[name]
        return _result(prepare(rows) @ prepare(columns).T, a)
    pairwise = PAIRWISE[name]
    return _result(np.stack([pairwise(row, columns) for row in rows]), a)


def similarity_pairwise(name: str, a: Any, b: Any) -> "torch.Tensor | Floats":
    """Return the scores [n] of each vector in `a` [n, d] with its counterpart in `b` [n, d]."""
    return _result(np.asarray(PAIRWISE[name](_floats(a), _floats(b))), a)


def _cosine(a: Floats, b: Floats) -> Floats:
    return _dot(_unit(a), _unit(b))


def _dot(a: Floats, b: Floats) -> Floats:
    total: Floats = (a * b).sum(axis=-1)
    return total


def _euclidean(a: Floats, b: Floats) -> Floats:
    distance: Floats = np.linalg.norm(a - b, axis=-1)
    return -distance


def _manhattan(a: Floats, b: Floats) -> Floats:
    distance: Floats = np.abs(a - b).sum(axis=-1)
    return -distance


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _TINY)
    return scaled


PAIRWISE: Mapping[str, Pairwise] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
"""The pairwise functions, by sentence-transformers' names."""

# Scores that are a single matrix product, and the preparation of both sides.
_PRODUCTS: Mapping[str, Callable[[Floats], Floats]] = {"cosine": _unit, "dot": lambda rows: rows}


def _floats(vectors: Any) -> Floats:
    """Return arrays, tensors or lists of them as one array of at least float32."""
    if isinstance(vectors, list) and vectors and hasattr(vectors[0], "shape"):
        return np.stack([_floats(vector) for vector in vectors])
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().cpu().float().numpy()
    array = np.asarray(vectors)
    wide = array.dtype.kind == "f" and array.itemsize >= np.dtype(np.float32).itemsize
    return array if wide else array.astype(np.float32)


def _result(scores: Floats, like: Any) -> "torch.Tensor | Floats":
    if find_spec("torch") is None:
        return scores
    return as_tensor(scores, like.device if hasattr(like, "detach") else None)
