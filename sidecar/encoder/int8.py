"""INT8: per-channel weights rounded by GPTQ, activations in 8 bits, embedding rows too.

An activation is scaled in one of two ways, whichever the layer's own inputs bear better:

- static: each channel is brought to the others' range (SmoothQuant, Xiao et al., 2022,
  arXiv:2211.10438), then one constant scale serves all rows. No pass over the row is needed,
  and the bias is added inside the multiplication.
- per row: the row's own largest magnitude is its scale. It costs three passes more, and is
  for layers whose rows differ too much in size.

Either way a row's scale depends on that row alone and integer products are exact, so its
result depends neither on its neighbours nor on the threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32, Linear
from sidecar.encoder.calibration import Observed
from sidecar.encoder.gptq import round_columns
from sidecar.encoder.nodes import CONTRIB, GraphWriter
from sidecar.encoder.recipes import Float32Recipe, Product

# AVX2's 8-bit multiply adds two u8*s8 products in 16 bits: 2 * 255 * 64 < 2^15 never
# saturates, 2 * 255 * 127 does. With weights in +-64 the same artifact is exact on every
# instruction set; with dot-product instructions +-127 is, too.
WEIGHT_MAX = {7: 64, 8: 127}

_TABLE_MAX = 127
_STEPS, _ZERO = 127, 128

# GELU is never below -0.1700: of 255 steps, 16 below zero reach -0.17 once the row's scale
# is at least _GELU_FLOOR, so its outputs need no pass for their absolute value and keep
# nearly all steps for the positive side.
_GELU_ZERO = 16
_GELU_STEPS = 255 - _GELU_ZERO
_GELU_FLOOR = 0.17 * _GELU_STEPS / _GELU_ZERO

# How much of a channel's range moves from the activations to the weights; SmoothQuant's alpha.
_SMOOTHING = 0.6
# A static scale is taken if its error is at most this many times that of scales per row: either
# is small, the gate measures what comes of it, and four passes less are worth the difference.
_TOLERANCE = 2.0
_IDLE = 1e-4  # a channel that hardly moves is smoothed as if it moved this share of the largest
_TINY = 1e-12  # keeps a row of zeros from dividing by zero


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """A Linear layer in 8 bits: `rows` int8 [out, in], `scales` float32 [out].

    With `step` the activations' scale is that constant and `unsmooth`, float32 [in], is what
    they are multiplied by first; without it each row finds its own.
    """

    rows: NDArray[np.int8]
    scales: Float32
    step: float | None = None
    unsmooth: Float32 | None = None


def calibrate(layer: Observed, weight_bits: int) -> Int8Linear:
    """Return the layer in 8 bits as its inputs bear best; `weight_bits` is 7 or 8."""
    largest = WEIGHT_MAX[weight_bits]
    # Rows after a GELU differ most of all in size, and their scale costs one pass less.
    if layer.after_gelu or not _bears_static(layer, largest):
        return _per_row(layer, largest)
    return _static(layer, largest)


def output_error(layer: Observed, quantized: Int8Linear) -> float:
    """Return the squared error of an output row as a share of its energy, in the mean.

    Row by row: a few tokens' outputs can be a hundred times larger than all others', and an
    error over all of them would see nothing else.
    """
    x = layer.sample
    exact = x @ layer.linear.weight.T
    weight = quantized.rows * quantized.scales[:, np.newaxis]
    difference = _restored(x, quantized) @ weight.T - exact
    energy = np.square(exact).sum(axis=1) + _TINY
    return float((np.square(difference).sum(axis=1) / energy).mean())


class Int8Recipe(Float32Recipe):
    """Multiplies the layers in `linears` in 8 bits, and those that are not there in FP32."""

    def __init__(self, linears: Mapping[str, Int8Linear]) -> None:
        self._linears = linears
        self.kernel = "onnxruntime MatMulIntegerToFloat, u8 activations x s8 weights"

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Gather 8-bit rows and their scales; one multiplication restores them."""
        rows, scales = quantize_rows(table, _TABLE_MAX)
        row = graph.op("Gather", graph.constant(rows, name), ids)
        scale = graph.op("Gather", graph.constant(scales, f"{name}.scale"), ids)
        return graph.op("Mul", graph.op("Cast", row, to=1), scale)

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> Product:
        """Scale the activations to 8 bits, multiply integers, scale back."""
        quantized = self._linears.get(name)
        if quantized is None:
            return super().matmul(graph, name, linear, x, after_gelu=after_gelu)
        if quantized.step is not None:
            return _multiply_static(graph, name, linear, quantized, x)
        return _multiply_per_row(graph, name, quantized, x, after_gelu=after_gelu)


def quantize_rows(matrix: Float32, largest: int) -> tuple[NDArray[np.int8], Float32]:
    """Return int8 [n, d] in ±`largest` and float32 scales [n, 1] with rows * scales ≈ matrix."""
    scales = _row_scales(matrix, largest)
    rows = np.clip(np.rint(matrix / scales), -largest, largest).astype(np.int8)
    return rows, scales


def _row_scales(matrix: Float32, largest: int) -> Float32:
    peak = np.abs(matrix).max(axis=1, keepdims=True)
    scales: Float32 = (np.maximum(peak, _TINY) / largest).astype(np.float32)
    return scales


def _bears_static(layer: Observed, largest: int) -> bool:
    """Whether a static scale is nearly as good; judged before the long work of rounding."""
    weight, smooth = layer.linear.weight, _smoothing(layer)
    rows, scales = quantize_rows(weight * smooth, largest)
    static = Int8Linear(rows, scales[:, 0], _step(layer, smooth), np.reciprocal(smooth))
    rows, scales = quantize_rows(weight, largest)
    per_row = Int8Linear(rows, scales[:, 0])
    return output_error(layer, static) <= _TOLERANCE * output_error(layer, per_row)


def _per_row(layer: Observed, largest: int) -> Int8Linear:
    rows, scales = _round(layer.linear.weight, layer.gram, largest)
    return Int8Linear(rows, scales)


def _static(layer: Observed, largest: int) -> Int8Linear:
    smooth = _smoothing(layer)
    gram = layer.gram / np.outer(smooth, smooth)
    rows, scales = _round(layer.linear.weight * smooth, gram, largest)
    return Int8Linear(rows, scales, _step(layer, smooth), np.reciprocal(smooth))


def _smoothing(layer: Observed) -> Float32:
    """Return SmoothQuant's divisor of each input channel, float32 [in], 1 in the median."""
    activations = np.maximum(layer.peak, _IDLE * layer.peak.max() + _TINY)
    largest = np.abs(layer.linear.weight).max(axis=0)
    weights = np.maximum(largest, _IDLE * largest.max() + _TINY)
    smooth: Float32 = activations**_SMOOTHING / weights ** (1 - _SMOOTHING)
    smooth /= np.median(smooth)
    return smooth.astype(np.float32)


def _step(layer: Observed, smooth: Float32) -> float:
    return max(float((layer.peak / smooth).max()) / _STEPS, _TINY)


def _round(weight: Float32, gram: Float32, largest: int) -> tuple[NDArray[np.int8], Float32]:
    scales = _row_scales(weight, largest)[:, 0]

    def rounded(_: int, column: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(np.rint(column / scales), -largest, largest) * scales

    grid = round_columns(weight, gram, rounded)
    return np.rint(grid / scales[:, np.newaxis]).astype(np.int8), scales


def _restored(x: Float32, quantized: Int8Linear) -> Float32:
    """Return what the integers say that `x` was, in the units that the weights expect."""
    if quantized.step is None or quantized.unsmooth is None:
        scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), _TINY) / _STEPS
    else:
        x, scale = x * quantized.unsmooth, np.float32(quantized.step)
    restored: Float32 = np.clip(np.rint(x / scale), -_ZERO, _STEPS) * scale
    return restored


def _multiply_static(
    graph: GraphWriter, name: str, linear: Linear, quantized: Int8Linear, x: str
) -> Product:
    assert quantized.unsmooth is not None
    assert quantized.step is not None
    smooth = graph.op("Mul", x, graph.constant(quantized.unsmooth, f"{name}.unsmooth"))
    step, zero = graph.scalar(quantized.step), graph.scalar(_ZERO, np.uint8)
    integers = graph.op("QuantizeLinear", smooth, step, zero)
    bias = graph.constant(linear.bias, f"{name}.bias")
    return Product(_integer_matmul(graph, name, quantized, (integers, step, zero), bias), True)


def _multiply_per_row(
    graph: GraphWriter, name: str, quantized: Int8Linear, x: str, *, after_gelu: bool
) -> Product:
    scale, steps, zero_point = _gelu_scale(graph, x) if after_gelu else _row_scale(graph, x)
    step, zero = graph.scalar(1 / steps), graph.scalar(zero_point, np.uint8)
    integers = graph.op("QuantizeLinear", graph.op("Div", x, scale), step, zero)
    product = _integer_matmul(graph, name, quantized, (integers, step, zero))
    return Product(graph.op("Mul", product, scale), False)


def _integer_matmul(
    graph: GraphWriter,
    name: str,
    quantized: Int8Linear,
    activations: tuple[str, str, str],
    bias: str = "",
) -> str:
    integers, step, zero = activations
    weight = graph.constant(quantized.rows.T, name)
    scales = graph.constant(quantized.scales, f"{name}.scale")
    tail = ["", bias] if bias else []
    inputs = [integers, weight, step, scales, zero, *tail]
    return graph.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB)


def _row_scale(graph: GraphWriter, x: str) -> tuple[str, int, int]:
    last_axis = graph.constant(np.array([-1]))
    peak = graph.op("ReduceMax", graph.op("Abs", x), last_axis, keepdims=1)
    return graph.op("Max", peak, graph.scalar(_TINY)), _STEPS, _ZERO


def _gelu_scale(graph: GraphWriter, x: str) -> tuple[str, int, int]:
    peak = graph.op("ReduceMax", x, graph.constant(np.array([-1])), keepdims=1)
    return graph.op("Max", peak, graph.scalar(_GELU_FLOOR)), _GELU_STEPS, _GELU_ZERO
