"""Run a graph on a row of tokens."""

import math
from pathlib import Path

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.encoder.runtime import Session
from sidecar.models.description import Activation
from sidecar.models.rows import Row


def session_of(graph: Path | bytes, quantization: str, threads: int = 1) -> Session:
    """Return a session for a graph in `quantization`, given as its path or its bytes."""
    return Session(graph, as_stored=is_as_stored(quantization), threads=threads)


def is_as_stored(quantization: str) -> bool:
    """Whether onnxruntime must not prepack the weights, which would unpack them."""
    return quantization == "int4"


def forward(session: Session, activation: Activation, row: Row) -> Float32:
    """Return float32 [outputs] for one row, with the score activation applied."""
    outputs: Float32 = session.run(row.ids[np.newaxis], row.token_types[np.newaxis])[0]
    if activation == "sigmoid":
        return np.array([_sigmoid(float(logit)) for logit in outputs], np.float32)
    return outputs


def _sigmoid(x: float) -> float:
    # Written so that neither tail overflows.
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
