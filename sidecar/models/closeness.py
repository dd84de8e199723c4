"""How close a graph comes to FP32, measured on the probe texts."""

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
    """Runs the FP32 `reference`, a graph's path, on the probes, and compares graphs with it."""

    def __init__(self, reference: Path, tokenizer: Tokenizer, description: Description) -> None:
        self._task = description.task
        self._activation = description.activation
        self._rows = tokenizer.rows(probe_inputs(description.task))
        self._reference = reference
        self._exact = self._run(Session(reference))

    def quality_of(self, graph: ModelProto) -> Quality:
        """Return the closeness of what `graph` computes to FP32's."""
        return closeness(self._task, self._exact, self._run(Session(graph.SerializeToString())))

    def speed_of(self, name: str, graph: ModelProto) -> dict[str, Speed]:
        """Return the speed of FP32, as "none", and of `graph`, as `name`."""
        sessions = {
            "none": Session(self._reference),
            name: session_of(graph.SerializeToString(), name),
        }
        return measure_speed(sessions, self._rows)

    def _run(self, session: Session) -> Float32:
        return np.stack([forward(session, self._activation, row) for row in self._rows])


def closeness(task: Task, exact: Float32, approximate: Float32) -> Quality:
    """Return how close a model's outputs on the probes of `task` come to FP32's, `exact`.

    Both are float32 [probes, outputs].
    """
    if task == "embed":
        return summary(cosines(exact, approximate))
    agreement = rank_agreement(_by_query(exact), _by_query(approximate))
    return summary(1 - np.abs(exact - approximate)[:, 0], agreement)


def cosines(a: Float32, b: Float32) -> Float32:
    """Return the cosine of each row of `a` with the same of `b`, float32 [rows].

    It is 1 for two rows of zeros, which a static model gives a text of no tokens.
    """
    norms: Float32 = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alike = (a == b).all(axis=1) & (norms == 0)
    values: Float32 = ((a * b).sum(axis=1) + alike) / (norms + alike)
    return values


def rank_agreement(exact: Float32, approximate: Float32) -> float:
    """Return the share of document pairs of a query that both sides put in the same order.

    Both are scores, float32 [queries, documents]. It is (tau + 1) / 2 for Kendall's tau.
    """
    first, second = np.triu_indices(exact.shape[1], k=1)
    order = np.sign(exact[:, first] - exact[:, second])
    other = np.sign(approximate[:, first] - approximate[:, second])
    return float((order == other).mean())


def summary(closeness: Float32, agreement: float | None = None) -> Quality:
    """Return the figures of `closeness`, float32 [probes], as events and manifests show them."""
    return Quality(
        mean=round(float(closeness.mean()), 6),
        p1=round(float(np.percentile(closeness, 1)), 6),
        min=round(float(closeness.min()), 6),
        texts=len(closeness),
        rank_agreement=None if agreement is None else round(agreement, 4),
    )


def _by_query(scores: Float32) -> Float32:
    return scores.reshape(-1, PASSAGES_PER_QUERY)
