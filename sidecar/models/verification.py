"""What was proven about a model's FP32 graph. A leaf: manifests and `status` include it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Proof that a model's FP32 graph gives what sentence-transformers gives for the folder.

    The token ids of `texts` texts were identical. The vectors or scores of `outputs` texts were
    compared: `cosine_min` is the least cosine between two vectors, None for a reranker;
    `score_error_max` is the largest difference between two scores, None for an embedder. `versions`
    are those of the libraries that gave the reference, by package. `seconds` is how much longer
    preparing took because of it.
    """

    versions: Mapping[str, str]
    texts: int
    outputs: int
    cosine_min: float | None = None
    score_error_max: float | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return the proof in one line."""
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
