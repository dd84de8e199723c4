"""What was proven about a model's FP32 graph. A leaf: it travels in manifests and in `status`."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A model's FP32 graph gave what sentence-transformers gives for the same folder.

    The token ids of `texts` texts were identical. The vectors or scores of `outputs` texts were
    compared: `cosine_min` is the least cosine between two vectors, None for a reranker;
    `score_error_max` is the largest difference of two scores, None for an embedder. `versions`
    are those of the libraries that gave the reference, by package. `seconds` is the time by
    which preparing took longer for it.
    """

    versions: Mapping[str, str]
    texts: int
    outputs: int
    cosine_min: float | None = None
    score_error_max: float | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return the proof in a line."""
        library = f"sentence-transformers {self.versions.get('sentence-transformers', '?')}"
        figure = (
            f"cosine >= {self.cosine_min:.6f}"
            if self.cosine_min is not None
            else f"scores within {self.score_error_max:.1e}"
        )
        return (
            f"equal to {library}: token ids of {self.texts} texts, "
            f"outputs of {self.outputs} texts ({figure})"
        )
