"""A graph's operators, timed by purpose."""

from pathlib import Path

import numpy as np

from bench import operators
from sidecar.encoder.graph import build
from sidecar.encoder.recipes import Float32Recipe
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.rows import Row


def test_the_time_of_every_operator_has_a_purpose(make_model, tmp_path: Path) -> None:
    """Times are reported by purpose, longest first."""
    folder = make_model("bert")
    graph = tmp_path / "model.onnx"
    encoder = read_encoder(folder, describe(folder))
    graph.write_bytes(build(encoder, Float32Recipe()).SerializeToString())
    row = Row(np.arange(8), np.zeros(8, np.int64), truncated=False)
    times = operators.milliseconds(graph, "none", [row] * 3, tmp_path)
    assert {operators.MULTIPLICATIONS, operators.ATTENTION, "GELU", "normalization"} <= set(times)
    assert list(times.values()) == sorted(times.values(), reverse=True)
    assert sum(times.values()) > 0
