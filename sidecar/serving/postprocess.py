"""Turn a forward's results into vectors and scores, each independently of all others."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_lib.wire.errors import BackendFailed
from client_lib.wire.messages import Precision
from sidecar.serving.registry import Float32

_TINY = np.float32(1e-12)  # keeps a vector of zeros as it is
# Integer steps per root mean square of a unit vector's numbers; eight times that is in range.
_UNITS = 16


@dataclass(frozen=True, slots=True)
class Postprocess:
    """Keep the first `dimensions` numbers and, with `normalize`, scale them to length 1."""

    dimensions: int
    normalize: bool

    def __call__(self, vector: Float32) -> Float32:
        """Return float32 [dimensions] for float32 [at least dimensions].

        Raises `ValueError` if the vector is shorter, `BackendFailed` if a number or the vector's
        length is not finite.
        """
        kept = vector[: self.dimensions]
        if kept.shape != (self.dimensions,):
            raise ValueError(f"a vector of shape {vector.shape}, not [{self.dimensions}]")
        if not self.normalize:
            if not np.isfinite(kept).all():
                raise _not_finite()
            return kept
        length = np.sqrt(np.square(kept).sum(dtype=np.float32))
        if not math.isfinite(length):
            raise _not_finite()
        scaled: Float32 = kept / np.maximum(length, _TINY)
        return scaled


def quantize(vectors: Float32, precision: Precision) -> NDArray[Any]:
    """Convert float32 [n, d] to `precision`: [n, d], or [n, ceil(d / 8)] for binary ones.

    "int8" is `round(16 * sqrt(d) * x)`, clipped to -128 to 127, and meant for vectors of length 1.
    It equals `quantize_embeddings` of sentence-transformers with a fixed range of -128.5 to 126.5
    such steps in every dimension; the library's default range depends on the other texts. "uint8"
    is that plus 128. The binary precisions are the library's: a bit is set if a number is above 0.
    """
    match precision:
        case "float32":
            return vectors
        case "float16":
            return vectors.astype(np.float16)
        case "int8":
            return _levels(vectors).astype(np.int8)
        case "uint8":
            return (_levels(vectors) + np.float32(128)).astype(np.uint8)
        case "binary":
            return (np.packbits(vectors > 0, axis=-1) ^ np.uint8(128)).view(np.int8)
        case "ubinary":
            return np.packbits(vectors > 0, axis=-1)


def _not_finite() -> BackendFailed:
    return BackendFailed("the model's result is not finite")


def _levels(vectors: Float32) -> Float32:
    scaled = vectors * np.float32(_UNITS * math.sqrt(vectors.shape[-1]))
    levels: Float32 = np.clip(np.rint(scaled, out=scaled), -128, 127, out=scaled)
    return levels


def cosines(query: Float32, documents: Float32) -> Float32:
    """Return float32 [n] for normalised vectors: query [d], documents [n, d].

    Sums row by row: the blocking of a matrix product, and so its rounding, depends on n.
    """
    scores: Float32 = (documents * query).sum(axis=1, dtype=np.float32)
    return scores


def best_first(scores: Float32) -> list[int]:
    """Return the indexes of `scores` [n], highest score first, ties by index."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order
