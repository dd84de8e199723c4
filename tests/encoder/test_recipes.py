"""One INT8 multiplication against the same integers in numpy."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from sidecar.encoder.architecture import Linear
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Int8Recipe, quantize_rows


def run_matmul(linear: Linear, x: np.ndarray, *, after_gelu: bool) -> np.ndarray:
    import onnxruntime as ort

    graph = GraphWriter()
    y = Int8Recipe().matmul(graph, "w", linear, "x", after_gelu=after_gelu)
    graph.rename(y, "y")
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    session = ort.InferenceSession(graph.model(floats[:1], floats[1:]).SerializeToString())
    return np.asarray(session.run(["y"], {"x": x})[0])


def linear_of(inputs: int, outputs: int) -> Linear:
    weight = np.random.default_rng(1).standard_normal((outputs, inputs)).astype(np.float32)
    return Linear(weight, np.zeros(outputs, np.float32))


def test_integer_product_is_exact_at_the_extremes() -> None:
    """The largest weights against the largest activations do not saturate."""
    weight = np.ones((8, 512), np.float32)
    x = np.ones((1, 4, 512), np.float32)
    y = run_matmul(Linear(weight, np.zeros(8, np.float32)), x, after_gelu=False)
    np.testing.assert_allclose(y, 512, rtol=1e-6)


@pytest.mark.parametrize("after_gelu", [False, True])
def test_error_is_that_of_eight_bits(after_gelu: bool) -> None:
    """The product is within two percent of FP32's in the mean, for both activation ranges."""
    linear = linear_of(256, 64)
    x = np.random.default_rng(2).standard_normal((1, 32, 256)).astype(np.float32)
    if after_gelu:
        x = np.maximum(x, -0.17)
    exact = x @ linear.weight.T
    error = np.abs(run_matmul(linear, x, after_gelu=after_gelu) - exact).mean()
    assert error <= 0.02 * np.abs(exact).mean()


@pytest.mark.parametrize("after_gelu", [False, True])
def test_row_of_zeros_stays_zero(after_gelu: bool) -> None:
    """A row without a peak divides by nothing and comes out as zeros."""
    y = run_matmul(linear_of(32, 8), np.zeros((1, 2, 32), np.float32), after_gelu=after_gelu)
    assert not y.any()


def test_an_outlier_row_leaves_the_others_alone() -> None:
    """One row a thousand times larger does not change its neighbours' bytes."""
    linear = linear_of(64, 16)
    x = np.random.default_rng(3).standard_normal((1, 4, 64)).astype(np.float32)
    before = run_matmul(linear, x, after_gelu=False)
    x[0, 0] *= 1000
    after = run_matmul(linear, x, after_gelu=False)
    assert before[0, 1:].tobytes() == after[0, 1:].tobytes()


def test_quantized_rows_are_restored_within_half_a_step() -> None:
    """Every weight is within half of its channel's step."""
    matrix = linear_of(128, 16).weight
    rows, scales = quantize_rows(matrix, 64)
    assert np.abs(rows).max() == 64
    assert (np.abs(rows * scales - matrix) <= scales * 0.5001).all()
