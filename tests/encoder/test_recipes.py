"""Quantized multiplications and lookups, checked against the same integers in numpy."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from sidecar.encoder import int4
from sidecar.encoder.activations import Activations, output_error
from sidecar.encoder.architecture import Linear
from sidecar.encoder.calibration import Observed
from sidecar.encoder.int4 import Int4Linear, group_size
from sidecar.encoder.int8 import Int8Linear, calibrate
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.quantized import QuantizedLinear, QuantizedRecipe, QuantizedTable
from sidecar.encoder.rounding import quantize_rows
from sidecar.encoder.saturation import nearest, round_pairs, scales_of
from sidecar.encoder.tables import int4_table, int8_table
from sidecar.host import read_host
from sidecar.plan import weight_bits

PER_ROW = Activations(8, after_gelu=False)


def observed(inputs: int = 64, outputs: int = 32, *, after_gelu: bool = False) -> Observed:
    """Return a layer with correlated inputs, in channels of very different magnitudes."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((512, inputs // 4)) @ rng.standard_normal((inputs // 4, inputs))
    x = (x + 0.1 * rng.standard_normal(x.shape)) * np.geomspace(0.1, 10, inputs)
    x = (np.maximum(x, -0.17) if after_gelu else x).astype(np.float32)
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    peak = np.abs(x).max(axis=0)
    return Observed(Linear(weight, bias), after_gelu, peak, x.T @ x, x[:128])


def run_matmul(layer: Observed, quantized: QuantizedLinear, x: np.ndarray) -> np.ndarray:
    """Return x @ weight.T + bias as the graph computes it."""
    graph = GraphWriter()
    recipe = QuantizedRecipe({"w": quantized}, {})
    product = recipe.matmul(graph, "w", layer.linear, "x", after_gelu=layer.after_gelu)
    graph.rename(product.value, "y")
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    session = ort.InferenceSession(graph.model(floats[:1], floats[1:]).SerializeToString())
    y = np.asarray(session.run(["y"], {"x": x[np.newaxis]})[0])[0]
    return y if product.biased else y + layer.linear.bias


def run_lookup(table: QuantizedTable, ids: np.ndarray) -> np.ndarray:
    """Return the rows for `ids` as the graph dequantizes them."""
    graph = GraphWriter()
    recipe = QuantizedRecipe({}, {"t": table})
    graph.rename(recipe.lookup(graph, "t", np.empty((0, 0), np.float32), "ids"), "y")
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, None)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    session = ort.InferenceSession(graph.model(inputs, outputs).SerializeToString())
    return np.asarray(session.run(["y"], {"ids": ids[np.newaxis]})[0])[0]


def per_row(layer: Observed) -> Int8Linear:
    """Return the layer quantized with per-row scales, forced by a huge outlier in the sample."""
    sample = layer.sample.copy()
    sample[0] *= 1000
    quantized = calibrate(replace(layer, sample=sample, peak=np.abs(sample).max(axis=0)), 7)
    assert quantized.activations.step is None
    return quantized


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("after_gelu", [False, True])
def test_error_is_that_of_eight_bits(after_gelu: bool, bits: int) -> None:
    """The INT8 product's squared error is at most one percent of FP32's energy."""
    layer = observed(after_gelu=after_gelu)
    exact = layer.sample @ layer.linear.weight.T + layer.linear.bias
    y = run_matmul(layer, calibrate(layer, bits), layer.sample)
    assert np.square(y - exact).sum() <= 0.01 * np.square(exact).sum()


def test_static_scale_is_taken_where_rows_are_alike() -> None:
    """A layer whose rows have similar magnitudes gets a single static scale."""
    assert calibrate(observed(), 7).activations.step is not None


def test_rows_of_very_different_size_keep_their_own_scales() -> None:
    """If one row is a thousand times larger than the others, rows get their own scales."""
    assert per_row(observed()).activations.step is None


@pytest.mark.parametrize("inputs", [64, 130, 512])
def test_integer_product_is_exact_at_the_extremes(inputs: int) -> None:
    """Weight pairs that add up to 128 do not saturate, even with the largest activations."""
    rng = np.random.default_rng(3)
    first = np.repeat(rng.integers(1, 128, (33, inputs // 2)), 2, axis=1)
    rows = np.where(np.arange(inputs) % 2 == 0, first, 128 - first).astype(np.int8)
    layer = replace(observed(inputs, 33), linear=Linear(rows, np.zeros(33, np.float32)))
    quantized = Int8Linear(rows, np.ones(33, np.float32), PER_ROW)
    y = run_matmul(layer, quantized, np.ones((4, inputs), np.float32))
    np.testing.assert_allclose(y, 64 * inputs, rtol=1e-6)


@pytest.mark.parametrize("inputs", [64, 65])
def test_no_pair_of_weights_asks_for_more_than_the_host_bears(inputs: int) -> None:
    """Neighbouring weights add up to at most 128 with 7 bits, and reach 127 each with 8."""
    layer = observed(64, 32)
    weight = np.random.default_rng(4).choice([-1.0, 1.0], (32, inputs)).astype(np.float32)
    layer = replace(
        layer,
        linear=replace(layer.linear, weight=weight),
        peak=np.ones(inputs, np.float32),
        gram=np.eye(inputs, dtype=np.float32),
        sample=np.ones((4, inputs), np.float32),
    )
    magnitudes = np.abs(calibrate(layer, 7).rows.astype(int))
    assert (magnitudes[:, 0 : inputs - 1 : 2] + magnitudes[:, 1::2]).max() == 128
    assert np.abs(calibrate(layer, 8).rows.astype(int)).max() == 127


def test_pairs_that_give_way_leave_finer_steps_to_all() -> None:
    """Reducing only the pairs that exceed 128 leaves less error than limiting weights to 64."""
    weight = observed(384, 64).linear.weight
    paired = np.square(nearest(weight, saturates=True) - weight).sum()
    rows, scales = quantize_rows(weight, 64)
    assert paired < 0.6 * np.square(rows * scales - weight).sum()


@pytest.mark.parametrize("after_gelu", [False, True])
def test_row_of_zeros_is_the_bias(after_gelu: bool) -> None:
    """A row of zeros gives exactly the bias, without a division by zero."""
    layer = observed(after_gelu=after_gelu)
    activations = Activations(8, after_gelu)
    for quantized in (calibrate(layer, 7), int4.calibrate(layer, 7)):
        rows = replace(quantized, activations=activations)
        y = run_matmul(layer, rows, np.zeros((2, 64), np.float32))
        np.testing.assert_allclose(y, np.tile(layer.linear.bias, (2, 1)), atol=1e-6)


def test_an_outlier_row_leaves_the_others_alone() -> None:
    """A row a thousand times larger than the others does not change their output bytes."""
    layer = observed()
    x = layer.sample[:4].copy()
    for quantized in (per_row(layer), calibrate(layer, 7), int4.calibrate(layer, 7)):
        before = run_matmul(layer, quantized, x)
        outlier = x * np.float32([[1000], [1], [1], [1]])
        assert before[1:].tobytes() == run_matmul(layer, quantized, outlier)[1:].tobytes()


def test_rounding_minds_the_inputs() -> None:
    """GPTQ leaves less error in the output than rounding to nearest."""
    layer = observed()

    def error(rows: np.ndarray, scales: np.ndarray) -> float:
        difference = rows * scales - layer.linear.weight
        return float(np.square(layer.sample @ difference.T).sum())

    rounded = per_row(layer)
    nearest = quantize_rows(layer.linear.weight, 64)
    assert error(rounded.rows, rounded.scales[:, np.newaxis]) < error(*nearest)


@pytest.mark.parametrize("saturates", [True, False])
@pytest.mark.parametrize("inputs", [64, 65])
def test_rounding_minds_no_order_of_the_inputs(inputs: int, saturates: bool) -> None:
    """Permuting pairs of inputs permutes the result: the most important pair goes first anyway."""
    layer = observed(inputs)
    weight, gram = layer.linear.weight, layer.gram
    scales = scales_of(weight, np.diag(gram), saturates=saturates)
    pairs = np.random.default_rng(6).permutation(inputs // 2)
    order = np.append((2 * pairs[:, np.newaxis] + [0, 1]).ravel(), np.arange(64, inputs))
    there = round_pairs(weight[:, order], gram[np.ix_(order, order)], scales, saturates=saturates)
    here = round_pairs(weight, gram, scales, saturates=saturates)
    np.testing.assert_array_equal(there, here[:, order])


def test_error_is_judged_row_by_row() -> None:
    """A row a thousand times larger than the others does not hide the others' error."""
    layer = observed()
    sample = layer.sample.copy()
    sample[0] *= 1000
    coarse = replace(PER_ROW, step=float(np.abs(sample).max()) / 127, unsmooth=np.ones(64))
    assert output_error(replace(layer, sample=sample), coarse, layer.linear.weight) > 0.5


def test_quantized_rows_are_restored_within_half_a_step() -> None:
    """Every dequantized number is within half a step of the original."""
    matrix = observed().linear.weight
    rows, scales = quantize_rows(matrix, 64)
    assert np.abs(rows).max() == 64
    assert (np.abs(rows * scales - matrix) <= scales * 0.5001).all()


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("after_gelu", [False, True])
def test_four_bits_are_multiplied_as_they_say(after_gelu: bool, bits: int) -> None:
    """The INT4 product equals that of the dequantized weights and inputs."""
    if bits > weight_bits(read_host()):
        pytest.skip("this processor saturates and uses 7 bits")
    layer = observed(after_gelu=after_gelu)
    quantized = int4.calibrate(layer, bits)
    restored = quantized.activations.restored(layer.sample)
    expected = restored @ quantized.dense().T + layer.linear.bias
    y = run_matmul(layer, quantized, layer.sample)
    assert np.abs(y - expected).max() <= 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("bits", [7, 8])
def test_error_is_that_of_four_bits(bits: int) -> None:
    """INT4's squared error is at most five percent of the output's energy."""
    layer = observed(384, 64)
    quantized = int4.calibrate(layer, bits)
    assert output_error(layer, quantized.activations, quantized.dense()) <= 0.05


def test_two_weights_share_a_byte() -> None:
    """INT4 takes half a byte per weight, and a scale and a zero point per group and output."""
    quantized = int4.calibrate(observed(384, 64), 8)
    assert quantized.packed.nbytes == 384 * 64 / 2
    assert quantized.scales.shape == quantized.zeros.shape == (2, 64)


def test_every_byte_gives_both_of_its_weights() -> None:
    """All 256 byte values with extreme 7-bit inputs give exact products without saturation."""
    packed = np.arange(-128, 128, dtype=np.int8).reshape(1, 256, 1)
    ones = np.ones((2, 1), np.float32)
    rows = Activations(7, after_gelu=False)
    quantized = Int4Linear(packed, ones, np.zeros((2, 1), np.int8), rows)
    low = (packed[0, :, 0].astype(int) + 8) % 16 - 8  # as a signed half
    expected = np.concatenate([16 * low, packed[0, :, 0]])
    assert (quantized.dense()[0] == expected).all()
    layer = replace(observed(512, 1), linear=Linear(quantized.dense(), np.zeros(1, np.float32)))
    x = np.sign(np.random.default_rng(0).standard_normal((8, 512))).astype(np.float32)
    np.testing.assert_allclose(run_matmul(layer, quantized, x)[:, 0], x @ expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "size"), [(384, 192), (768, 192), (3072, 192), (64, 32), (1024, 128), (250, 125)]
)
def test_groups_are_even_in_number(inputs: int, size: int) -> None:
    """The group size, at most 192, gives an even number of equal groups."""
    assert group_size(inputs) == size


def test_four_bit_rounding_minds_the_inputs() -> None:
    """Input-aware INT4 rounding leaves less error in the output than blind rounding."""
    layer = observed(384, 64)
    blind = replace(layer, gram=np.eye(384, dtype=np.float32))
    minding, nearest = int4.calibrate(layer, 8), int4.calibrate(blind, 8)
    errors = [output_error(layer, q.activations, q.dense()) for q in (minding, nearest)]
    assert errors[0] < errors[1]


def test_tables_are_looked_up_as_they_say() -> None:
    """Lookups return 8-bit rows within a step, and 4-bit rows equal to those of `dense`."""
    table = np.random.default_rng(3).standard_normal((50, 96)).astype(np.float32)
    ids = np.array([0, 49, 7, 7])
    assert np.abs(run_lookup(int8_table(table), ids) - table[ids]).max() <= 0.02
    four = int4_table(table)
    np.testing.assert_allclose(run_lookup(four, ids), four.dense()[ids], atol=1e-6)
    assert np.square(four.dense() - table).sum() <= 0.02 * np.square(table).sum()


def test_a_channel_of_outliers_leaves_a_row_s_others_alone() -> None:
    """A channel a hundred times larger than the rest does not reduce their precision."""
    table = np.random.default_rng(3).standard_normal((50, 96)).astype(np.float32)
    table[:, 5] *= 100
    rest = np.delete(int4_table(table).dense() - table, 5, axis=1)
    assert np.square(rest).sum() <= 0.02 * np.square(np.delete(table, 5, axis=1)).sum()


def test_a_table_of_zeros_stays_one() -> None:
    """A table of zeros, such as a padding token's row, stays zero without a division by zero."""
    assert (int4_table(np.zeros((3, 64), np.float32)).dense() == 0).all()
