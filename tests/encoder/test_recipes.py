"""INT8 multiplications against the same integers in numpy."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from sidecar.encoder.architecture import Linear
from sidecar.encoder.calibration import Observed
from sidecar.encoder.int8 import (
    Int8Linear,
    Int8Recipe,
    _per_row,
    calibrate,
    output_error,
    quantize_rows,
)
from sidecar.encoder.nodes import GraphWriter


def observed(inputs: int = 64, outputs: int = 32, *, after_gelu: bool = False) -> Observed:
    """A layer whose inputs are correlated, with channels of very different size."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((512, inputs // 4)) @ rng.standard_normal((inputs // 4, inputs))
    x = (x + 0.1 * rng.standard_normal(x.shape)) * np.geomspace(0.1, 10, inputs)
    x = (np.maximum(x, -0.17) if after_gelu else x).astype(np.float32)
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    peak = np.abs(x).max(axis=0)
    return Observed(Linear(weight, bias), after_gelu, peak, x.T @ x, x[:128])


def run_matmul(layer: Observed, quantized: Int8Linear, x: np.ndarray) -> np.ndarray:
    """Return x @ weight.T + bias as the graph computes it."""
    graph = GraphWriter()
    recipe = Int8Recipe({"w": quantized})
    product = recipe.matmul(graph, "w", layer.linear, "x", after_gelu=layer.after_gelu)
    graph.rename(product.value, "y")
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    session = ort.InferenceSession(graph.model(floats[:1], floats[1:]).SerializeToString())
    y = np.asarray(session.run(["y"], {"x": x[np.newaxis]})[0])[0]
    return y if product.biased else y + layer.linear.bias


def per_row(layer: Observed) -> Int8Linear:
    return _per_row(layer, 64)


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("after_gelu", [False, True])
def test_error_is_that_of_eight_bits(after_gelu: bool, bits: int) -> None:
    """The graph's product is FP32's within one percent of its energy."""
    layer = observed(after_gelu=after_gelu)
    exact = layer.sample @ layer.linear.weight.T + layer.linear.bias
    y = run_matmul(layer, calibrate(layer, bits), layer.sample)
    assert np.square(y - exact).sum() <= 0.01 * np.square(exact).sum()


def test_static_scale_is_taken_where_rows_are_alike() -> None:
    """Rows of similar size get one scale, and the bias inside the product."""
    assert calibrate(observed(), 7).step is not None


def test_rows_of_very_different_size_keep_their_own_scales() -> None:
    """One row a thousand times larger than the others: a static scale would lose them."""
    layer = observed()
    sample = layer.sample.copy()
    sample[0] *= 1000
    peak = np.abs(sample).max(axis=0)
    assert calibrate(replace(layer, sample=sample, peak=peak), 7).step is None


def test_integer_product_is_exact_at_the_extremes() -> None:
    """The largest 7-bit weights against the largest activations do not saturate anywhere."""
    weight = np.ones((8, 512), np.float32)
    rows, scales = quantize_rows(weight, 64)
    layer = replace(observed(512, 8), linear=Linear(weight, np.zeros(8, np.float32)))
    y = run_matmul(layer, Int8Linear(rows, scales[:, 0]), np.ones((4, 512), np.float32))
    np.testing.assert_allclose(y, 512, rtol=1e-6)


@pytest.mark.parametrize("after_gelu", [False, True])
def test_row_of_zeros_is_the_bias(after_gelu: bool) -> None:
    """A row without a peak divides by nothing."""
    layer = observed(after_gelu=after_gelu)
    y = run_matmul(layer, per_row(layer), np.zeros((2, 64), np.float32))
    assert (y == layer.linear.bias).all()


def test_an_outlier_row_leaves_the_others_alone() -> None:
    """One row a thousand times larger does not change its neighbours' bytes."""
    layer = observed()
    x = layer.sample[:4].copy()
    for quantized in (per_row(layer), calibrate(layer, 7)):
        before = run_matmul(layer, quantized, x)
        outlier = x * np.float32([[1000], [1], [1], [1]])
        assert before[1:].tobytes() == run_matmul(layer, quantized, outlier)[1:].tobytes()


def test_rounding_minds_the_inputs() -> None:
    """GPTQ's rounding leaves less error in the output than rounding to the nearest."""
    layer = observed()

    def error(rows: np.ndarray, scales: np.ndarray) -> float:
        difference = rows * scales - layer.linear.weight
        return float(np.square(layer.sample @ difference.T).sum())

    rounded = per_row(layer)
    nearest = quantize_rows(layer.linear.weight, 64)
    assert error(rounded.rows, rounded.scales[:, np.newaxis]) < error(*nearest)


def test_error_is_judged_row_by_row() -> None:
    """A row a thousand times larger than the others does not hide their error."""
    layer = observed()
    sample = layer.sample.copy()
    sample[0] *= 1000
    coarse = replace(calibrate(layer, 7), step=float(np.abs(sample).max()) / 127)
    assert output_error(replace(layer, sample=sample), coarse) > 0.5


def test_quantized_rows_are_restored_within_half_a_step() -> None:
    """Every number of a table is within half of its row's step."""
    matrix = observed().linear.weight
    rows, scales = quantize_rows(matrix, 64)
    assert np.abs(rows).max() == 64
    assert (np.abs(rows * scales - matrix) <= scales * 0.5001).all()
