"""A loaded artifact: texts to rows, rows to floats."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.encoder.runtime import Session
from sidecar.models import manifest as manifests
from sidecar.models.description import Activation
from sidecar.models.manifest import Manifest
from sidecar.models.rows import Row, Text
from sidecar.models.tokenizer import Tokenizer

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"


class Model:
    """One model, ready to serve.

    `forward` may be called from many threads at once; so may `tokenize`. `reason` says why it
    has the quantization that it has.
    """

    def __init__(self, manifest: Manifest, session: Session, tokenizer: Tokenizer) -> None:
        self._manifest = manifest
        self._session = session
        self._tokenizer = tokenizer
        description = manifest.description
        self.name = manifest.name
        self.task = description.task
        self.dimensions = manifest.dimensions
        self.max_tokens = description.max_tokens
        self.normalize = description.normalize
        self.prompts = description.prompts
        self.default_prompt_name = description.default_prompt_name
        self.reason: str | None = None

    def tokenize(self, texts: Sequence[Text]) -> list[Row]:
        """Return a row for each text, or for each (query, document) of a reranker."""
        return self._tokenizer.rows(texts)

    def forward(self, row: Row) -> Float32:
        """Return float32 [dimensions]: the pooled vector, not normalised; or [1], a score."""
        return forward(self._session, self._manifest.description.activation, row)

    def describe(self) -> dict[str, Any]:
        """Return what `status` tells of this model."""
        own = {"task": self.task, "device": "cpu", "reason": self.reason}
        return {**asdict(self._manifest), **own}


def load(folder: Path) -> Model:
    """Return the model in the artifact at `folder`. Raises `ModelError` for a damaged one."""
    manifest = manifests.read(folder)
    tokenizer = Tokenizer(folder / TOKENIZER, manifest.description.max_tokens)
    return Model(manifest, session_of(folder / GRAPH, manifest.quantization), tokenizer)


def session_of(graph: Path | bytes, quantization: str) -> Session:
    """Return a graph in `quantization`, its path or its bytes, ready to run."""
    return Session(graph, as_stored=quantization == "int4")


def forward(session: Session, activation: Activation, row: Row) -> Float32:
    """Return float32 [outputs] for one row, its scores activated."""
    outputs: Float32 = session.run(row.ids[np.newaxis], row.token_types[np.newaxis])[0]
    if activation == "sigmoid":
        return np.array([_sigmoid(float(logit)) for logit in outputs], np.float32)
    return outputs


def _sigmoid(x: float) -> float:
    # Written so that neither tail overflows.
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
