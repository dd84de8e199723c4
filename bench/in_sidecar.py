"""A model in this process as the daemon computes it, its artifact loaded with nothing else."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.models.model import load
from sidecar.models.rows import Row, Text
from sidecar.serving.postprocess import Postprocess


class InSidecar:
    """Each row by itself, unpadded, on one thread; `threads` of them side by side."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self._model = load(artifact)
        self._finish = Postprocess(self._model.dimensions, self._model.normalize)
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, texts: Sequence[Text]) -> Float32:
        """Return float32 [texts, outputs]: vectors, or scores."""
        rows = self._model.tokenize(texts)
        return np.stack(list(self._pool.map(self._compute, rows)))

    def tokens(self, texts: Sequence[Text]) -> list[int]:
        """Return how many tokens are computed for each text."""
        return [row.tokens for row in self._model.tokenize(texts)]

    def _compute(self, row: Row) -> Float32:
        return self._finish(self._model.forward(row))
