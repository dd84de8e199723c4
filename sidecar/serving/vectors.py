"""What becomes of a forward's result. One row at a time, so that no neighbour can matter."""

from dataclasses import dataclass

import numpy as np

from sidecar.serving.roster import Float32

_TINY = np.float32(1e-12)  # a vector of zeros stays one


@dataclass(frozen=True, slots=True)
class Finish:
    """Keep the first `dimensions` numbers; then, with `normalize`, scale them to length 1."""

    dimensions: int
    normalize: bool

    def __call__(self, vector: Float32) -> Float32:
        """Return float32 [dimensions] for float32 [at least dimensions].

        Raises `ValueError` for a vector that is shorter.
        """
        kept = vector[: self.dimensions]
        if kept.shape != (self.dimensions,):
            raise ValueError(f"a vector of shape {vector.shape}, not [{self.dimensions}]")
        if not self.normalize:
            return kept
        length = np.sqrt(np.square(kept).sum(dtype=np.float32))
        scaled: Float32 = kept / np.maximum(length, _TINY)
        return scaled


def cosines(query: Float32, documents: Float32) -> Float32:
    """Return float32 [n] for normalised vectors: query [d], documents [n, d].

    Summed row by row rather than by a matrix product, whose blocking depends on n.
    """
    scores: Float32 = (documents * query).sum(axis=1, dtype=np.float32)
    return scores


def best_first(scores: Float32) -> list[int]:
    """Return the indexes of `scores` [n] from the highest to the lowest, ties by index."""
    return [int(index) for index in np.argsort(-scores, kind="stable")]
