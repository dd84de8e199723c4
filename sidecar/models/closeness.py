"""Measure how close a graph's outputs are to FP32 on the probe texts."""

from pathlib import Path

import numpy as np
from onnx import ModelProto

from sidecar.encoder.architecture import Float32
from sidecar.encoder.runtime import Session
from sidecar.models.compute import forward, session_of
from sidecar.models.description import Description, Task
from sidecar.models.manifest import Quality, Speed
from sidecar.models.probes import PASSAGES_PER_QUERY, probe_inputs
from sidecar.models.speed import measure_speed
from sidecar.models.tokenizer import Tokenizer


class Judge:
    """Compares graphs with the FP32 graph at the path `reference`; both run on the probes."""

    def __init__(self, reference: Path, tokenizer: Tokenizer, description: Description) -> None:
        self._task = description.task
        self._activation = description.activation
        self._rows = tokenizer.rows(probe_inputs(description.task))
        self._reference = reference
        self._exact = self._run(Session(reference))

    def quality_of(self, graph: ModelProto) -> Quality:
        """Return how close the outputs of `graph` are to FP32's."""
        return closeness(self._task, self._exact, self._run(Session(graph.SerializeToString())))

    def speed_of(self, name: str, graph: ModelProto) -> dict[str, Speed]:
        """Return the speed of FP32, under "none", and of `graph`, under `name`."""
        sessions = {
            "none": Session(self._reference),
            name: session_of(graph.SerializeToString(), name),
        }
        return measure_speed(sessions, self._rows)

    def _run(self, session: Session) -> Float32:
        return np.stack([forward(session, self._activation, row) for row in self._rows])


def closeness(task: Task, exact: Float32, approximate: Float32) -> Quality:
    """Return how close the outputs `approximate` are to FP32's, `exact`, on the probes of `task`.

    Both are float32 [probes, outputs].
    """
    if task == "embed":
        return summary(cosines(exact, approximate))
    agreement = rank_agreement(_by_query(exact), _by_query(approximate))
    return summary(1 - np.abs(exact - approximate)[:, 0], agreement)


def cosines(a: Float32, b: Float32) -> Float32:
    """Return the cosine of each row of `a` with the same row of `b`, float32 [rows].

    Two all-zero rows have a cosine of 1: a static model gives zeros for a text without tokens.
    """
    norms: Float32 = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alike = (a == b).all(axis=1) & (norms == 0)
    values: Float32 = ((a * b).sum(axis=1) + alike) / (norms + alike)
    return values


def rank_agreement(exact: Float32, approximate: Float32) -> float:
    """Return the share of document pairs, within each query, that both sides put in the same order.

    Both are scores, float32 [queries, documents]. It is (tau + 1) / 2 for Kendall's tau.
    """
    first, second = np.triu_indices(exact.shape[1], k=1)
    order = np.sign(exact[:, first] - exact[:, second])
    other = np.sign(approximate[:, first] - approximate[:, second])
    return float((order == other).mean())


def summary(closeness: Float32, agreement: float | None = None) -> Quality:
    """Summarise `closeness`, float32 [probes], for events and manifests."""
    return Quality(
        mean=round(float(closeness.mean()), 6),
        p1=round(float(np.percentile(closeness, 1)), 6),
        min=round(float(closeness.min()), 6),
        texts=len(closeness),
        rank_agreement=None if agreement is None else round(agreement, 4),
    )


def _by_query(scores: Float32) -> Float32:
    return scores.reshape(-1, PASSAGES_PER_QUERY)
