"""The slow path: an embedding model that no graph here computes, by sentence-transformers itself.

It is served in FP32, row by row and unpadded like all others, so the same text still gives the
same bytes. It needs the extra `server`; a daemon for the known families never imports torch.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.models.errors import ModelError
from sidecar.models.rows import Row, Text

KERNEL = "torch fp32, by sentence-transformers"


class ForeignModel:
    """A sentence-transformers model in the shape that serving knows."""

    def __init__(self, name: str, pipeline: Any) -> None:
        modules = list(pipeline.children())
        self._kinds = [type(module).__name__ for module in modules]
        # Whether vectors are normalised is the request's choice, made behind the forward.
        self._modules = [m for m in modules if type(m).__name__ != "Normalize"]
        self._tokenize = pipeline.tokenize
        self.name = name
        self.task = "embed"
        self.dimensions = int(pipeline.get_embedding_dimension())
        self.max_tokens = int(pipeline.max_seq_length)
        self.normalize = "Normalize" in self._kinds
        self.prompts: Mapping[str, str] = pipeline.prompts
        self.default_prompt_name: str | None = pipeline.default_prompt_name
        self.weight_bytes = sum(p.numel() * p.element_size() for p in pipeline.parameters())

    def tokenize(self, texts: Sequence[Text]) -> list[Row]:
        """Return a row for each text. Called by one thread at a time."""
        return [self._row(str(text)) for text in texts]

    def forward(self, row: Row) -> Float32:
        """Return float32 [dimensions], not normalised."""
        import torch  # noqa: PLC0415 - only where this path is taken

        ids = torch.from_numpy(row.ids[np.newaxis])
        features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.inference_mode():
            for module in self._modules:
                features = module(features)
        vector: Float32 = features["sentence_embedding"][0].float().numpy()
        return vector

    def describe(self) -> dict[str, Any]:
        """Return what `status` tells of this model."""
        return {
            "name": self.name,
            "task": self.task,
            "quantization": "none",
            "kernel": KERNEL,
            "dimensions": self.dimensions,
            "max_tokens": self.max_tokens,
            "bytes_weights": self.weight_bytes,
            "modules": self._kinds,
        }

    def _row(self, text: str) -> Row:
        ids = self._tokenize([text])["input_ids"][0].numpy()
        # The library cuts silently; at the limit it cannot be told from a text that just fits.
        return Row(ids, np.zeros_like(ids), truncated=len(ids) >= self.max_tokens)


def load_foreign(folder: Path, name: str, reason: str) -> ForeignModel:
    """Return the embedding model in `folder`, loaded by sentence-transformers.

    Raises `ModelError`, beginning with `reason`, where that library is missing or cannot
    load it either.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        advice = "install the extra `server` to serve it through sentence-transformers"
        raise ModelError(f"{reason}; {advice}")
    # Before torch is imported: the daemon's own threads are the parallelism.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds to import

    try:
        return ForeignModel(name, SentenceTransformer(str(folder), device="cpu").eval())
    except Exception as error:  # whatever a model's own code raises
        raise ModelError(f"{reason}; sentence-transformers cannot load it: {error}") from error
