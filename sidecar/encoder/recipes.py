"""How a matrix multiplication and a table lookup are done: in FP32, or in 8 bits.

A recipe sees one operation at a time and knows nothing of the model around it.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32, Linear
from sidecar.encoder.nodes import CONTRIB, GraphWriter

# AVX2's 8-bit multiply adds two u8*s8 products in 16 bits: 2 * 255 * 64 < 2^15 never
# saturates, 2 * 255 * 127 does. With weights in +-64 the same artifact is exact on every
# instruction set.
_WEIGHT_MAX = 64
_ACTIVATION_MAX = 127
_ACTIVATION_ZERO = 128
_TABLE_MAX = 127

# GELU is never below -0.1700: of 255 steps, 16 below zero reach -0.17 once the row's scale
# is at least _GELU_FLOOR, so its outputs need no pass for their absolute value and keep
# nearly all steps for the positive side.
_GELU_ZERO = 16
_GELU_STEPS = 255 - _GELU_ZERO
_GELU_FLOOR = 0.17 * _GELU_STEPS / _GELU_ZERO

_TINY = 1e-12  # keeps a row of zeros from dividing by zero


class Recipe(Protocol):
    """One way to hold and to multiply weights; `kernel` names the multiplication in events."""

    kernel: str

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Add `table[ids]`, float32 [1, tokens, hidden]; `table` is [rows, hidden]."""

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> str:
        """Add `x @ weight.T` without the bias; `after_gelu` promises x >= -0.17."""


class Float32Recipe:
    """The reference: what the checkpoint says, in FP32."""

    kernel = "onnxruntime MatMul, fp32"

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Gather rows."""
        return graph.op("Gather", graph.constant(table, name), ids)

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> str:
        """Multiply by the transposed weight."""
        del after_gelu
        return graph.op("MatMul", x, graph.constant(linear.weight.T, name))


class Int8Recipe:
    """Dynamic INT8: weights scaled per output channel, activations per row (token).

    The activation's scale is found from its own row alone and the integer product is exact,
    so a row's result does not depend on its neighbours, nor on the threads.
    """

    kernel = "onnxruntime MatMulIntegerToFloat, u8 per row x s8 (7 bits) per channel"

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Gather 8-bit rows and their scales; one multiplication restores them."""
        rows, scales = quantize_rows(table, _TABLE_MAX)
        row = graph.op("Gather", graph.constant(rows, name), ids)
        scale = graph.op("Gather", graph.constant(scales, f"{name}.scale"), ids)
        return graph.op("Mul", graph.op("Cast", row, to=1), scale)

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> str:
        """Scale each row of x to 8 bits, multiply integers, scale each row back."""
        scale, steps, zero = _gelu_scale(graph, x) if after_gelu else _row_scale(graph, x)
        step, zero_point = graph.scalar(1 / steps), graph.scalar(zero, np.uint8)
        unit = graph.op("Div", x, scale)
        quantized = graph.op("QuantizeLinear", unit, step, zero_point)
        weight, channel_scale = quantize_rows(linear.weight, _WEIGHT_MAX)
        product = graph.op(
            "MatMulIntegerToFloat",
            quantized,
            graph.constant(weight.T, name),
            step,
            graph.constant(channel_scale[:, 0], f"{name}.scale"),
            zero_point,
            domain=CONTRIB,
        )
        return graph.op("Mul", product, scale)


def quantize_rows(matrix: Float32, largest: int) -> tuple[NDArray[np.int8], Float32]:
    """Return int8 [n, d] in ±`largest` and float32 scales [n, 1] with rows * scales ≈ matrix."""
    peak = np.abs(matrix).max(axis=1, keepdims=True)
    scales = np.maximum(peak, _TINY) / np.float32(largest)
    rows = np.clip(np.rint(matrix / scales), -largest, largest).astype(np.int8)
    return rows, scales.astype(np.float32)


def _row_scale(graph: GraphWriter, x: str) -> tuple[str, int, int]:
    last_axis = graph.constant(np.array([-1]))
    peak = graph.op("ReduceMax", graph.op("Abs", x), last_axis, keepdims=1)
    return graph.op("Max", peak, graph.scalar(_TINY)), _ACTIVATION_MAX, _ACTIVATION_ZERO


def _gelu_scale(graph: GraphWriter, x: str) -> tuple[str, int, int]:
    peak = graph.op("ReduceMax", x, graph.constant(np.array([-1])), keepdims=1)
    return graph.op("Max", peak, graph.scalar(_GELU_FLOOR)), _GELU_STEPS, _GELU_ZERO
