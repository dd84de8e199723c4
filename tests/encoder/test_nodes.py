"""Graph writing (shared constants, external weights) and session options."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from sidecar.encoder import runtime
from sidecar.encoder.activations import Activations
from sidecar.encoder.architecture import Linear
from sidecar.encoder.int4 import Int4Linear
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.quantized import QuantizedRecipe
from sidecar.encoder.runtime import Session

from .by_hand import Random

make = helper.make_tensor_value_info


def test_equal_constants_are_one_and_others_are_not() -> None:
    """Unnamed constants are shared only if their dtype, shape and bytes are equal."""
    graph = GraphWriter()
    values: list[np.ndarray] = [
        np.zeros(4, np.int8), np.zeros(4, np.uint8), np.zeros((2, 2), np.int8),
        np.zeros((4, 1), np.int8), np.array(0.0, np.float32), np.array(0, np.int32),
        np.array(1.0, np.float32), np.zeros(1, np.float32),
    ]  # fmt: skip
    names = [graph.constant(value) for value in values]
    assert len(set(names)) == len(values)
    assert [graph.constant(value.copy()) for value in values] == names
    assert graph.scalar(1) == names[6]
    assert graph.scalar(1, np.int64) not in names
    stored = {each.name: each for each in graph.model([], []).graph.initializer}
    for name, value in zip(names, values, strict=True):
        found = numpy_helper.to_array(stored[name])
        assert (found.dtype, found.shape, found.tobytes()) == (
            value.dtype, value.shape, value.tobytes(),
        )  # fmt: skip


def test_named_constants_are_never_shared() -> None:
    graph = GraphWriter()
    assert graph.constant(np.zeros(3), "a") == "a"
    assert graph.constant(np.zeros(3), "b") == "b"
    assert len(graph.model([], []).graph.initializer) == 2


def test_a_shared_value_is_added_once_by_its_name() -> None:
    graph = GraphWriter()
    first = graph.shared("a", lambda: graph.op("Abs", "x"))
    assert graph.shared("a", lambda: graph.op("Neg", "x")) == first
    assert graph.shared("b", lambda: graph.op("Neg", "x")) != first
    assert [node.op_type for node in graph.model([], []).graph.node] == ["Abs", "Neg"]


def test_large_weights_lie_in_a_file_beside_the_model(tmp_path: Path) -> None:
    """Large weights are stored contiguously in an external file, aligned to pages."""
    values = {
        "small": Random(0).array(255),
        "least": Random(1).array(256),
        "turned": Random(2).array(40, 30).T,
        "bytes": Random(3).rng.integers(-128, 128, (70, 90)).astype(np.int8),
    }
    with (tmp_path / "weights.bin").open("wb") as file:
        graph = GraphWriter(file)
        for name, value in values.items():
            graph.rename(graph.constant(value, name), f"{name} out")
        graph.rename(graph.constant(np.arange(1000)), "unnamed out")
    outputs = [make(f"{name} out", TensorProto.FLOAT, None) for name in ("small", "least")]
    model = graph.model([], outputs)
    found = {each.name: each for each in model.graph.initializer}
    assert found["small"].data_location != TensorProto.EXTERNAL
    places = []
    for name in ("least", "turned", "bytes"):
        info = ExternalDataInfo(found[name])
        assert (info.location, info.length) == ("weights.bin", values[name].nbytes)
        assert info.offset % 4096 == 0
        places += [info.offset, info.offset + info.length]
    assert places == sorted(places)  # no overlaps
    onnx.save(model, tmp_path / "model.onnx")
    for each in onnx.load(tmp_path / "model.onnx").graph.initializer:
        if each.name in values:
            np.testing.assert_array_equal(numpy_helper.to_array(each), values[each.name])


def four_bits() -> bytes:
    """Return the serialised model of a single layer with 4-bit weights."""
    graph = GraphWriter()
    draw = Random(4)
    packed = draw.rng.integers(-128, 128, (1, 32, 8)).astype(np.int8)
    scales, zeros = np.ones((2, 8), np.float32), np.zeros((2, 8), np.int8)
    linear = Int4Linear(packed, scales, zeros, Activations(7, after_gelu=False))
    recipe = QuantizedRecipe({"w": linear}, {})
    product = recipe.matmul(graph, "w", Linear(linear.dense(), np.zeros(8, np.float32)), "ids")
    graph.rename(product.value, "vectors")
    inputs = [make("ids", TensorProto.FLOAT, [1, "tokens", 64])]
    return graph.model(inputs, [make("vectors", TensorProto.FLOAT, None)]).SerializeToString()


@pytest.mark.parametrize("as_stored", [True, False])
def test_weights_stay_as_they_are_stored_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_stored: bool
) -> None:
    """With `as_stored`, onnxruntime neither unpacks nor prepacks weights; otherwise it may."""
    opened = ort.InferenceSession

    def noted(model: bytes, options: Any, **others: Any) -> Any:
        options.optimized_model_filepath = str(tmp_path / "seen.onnx")
        return opened(model, options, **others)

    monkeypatch.setattr(runtime.ort, "InferenceSession", noted)
    session = Session(four_bits(), as_stored=as_stored)
    nodes = onnx.load(tmp_path / "seen.onnx").graph
    stored = {each.name: each for each in nodes.initializer}
    unpacking = [node for node in nodes.node if node.op_type == "Mul" and "w.0.0" in node.input]
    assert (len(unpacking) == 1 and "w.0.0" in stored) == as_stored
    options = session._session.get_session_options()
    if as_stored:
        assert options.get_session_config_entry("session.disable_prepacking") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.disable_prepacking")


def test_a_session_has_as_many_threads_as_it_is_given() -> None:
    """A session has one thread by default, or as many as requested, which stop spinning."""
    model = four_bits()
    for session, threads in ((Session(model), 1), (Session(model, threads=3), 3)):
        options = session._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"
        assert session._session.get_providers() == ["CPUExecutionProvider"]


def test_the_engine_reports_to_nobody() -> None:
    """onnxruntime's telemetry is disabled before the library is first imported."""
    left = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    code = """
import sys
from sidecar.encoder import architecture
assert "onnxruntime" not in sys.modules
import importlib.abc, os
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "onnxruntime":
            print(os.environ["ORT_DISABLE_TELEMETRY"])
sys.meta_path.insert(0, Watch())
import sidecar.encoder.runtime
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=left, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
