"""Quantization of a layer's inputs to the 8-bit integers that are multiplied.

There are two ways, chosen by the layer's own inputs:

- static: channels are equalised (SmoothQuant, Xiao et al., 2022, arXiv:2211.10438), then a single
  constant scale serves all rows. No pass over the row is needed, and the bias is added inside the
  multiplication.
- per row: the scale is the row's largest magnitude. This costs three more passes, and is for
  layers whose rows differ too much in size.

Either way, a row's scale depends only on that row and integer products are exact, so its result
depends neither on its neighbours nor on the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.encoder.calibration import Observed
from sidecar.encoder.nodes import GraphWriter

# GELU is never below -0.1700. With a sixteenth of the steps below zero, the grid reaches -0.17 if
# the row's peak is at least _GELU_FLOOR. So GELU outputs need no pass for absolute values, and
# nearly all steps are left for the positive side.
_GELU_SHARE = 16
_GELU_FLOOR = 0.17 * (_GELU_SHARE - 1)

# Candidates for SmoothQuant's alpha, the share of a channel's range that moves from the activations
# to the weights. Each layer uses the one with the least error.
_SMOOTHINGS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# A static scale is chosen if its error is at most this multiple of that of per-row scales. Both are
# small, the quality gate measures the outcome, and saving four passes is worth the difference.
_TOLERANCE = 2.0
_ROWS_TO_CHOOSE = 512
_IDLE = 1e-4  # nearly idle channels are smoothed as if they had this share of the largest range
_TINY = 1e-12  # avoids division by zero for a row of zeros


class Integers(NamedTuple):
    """Graph names of quantized inputs, which stand for (value - zero) * step * scale.

    `value` is uint8 [1, tokens, in], `step` a scalar and `scale` float32 [1, tokens, 1], or "" if
    it is 1.
    """

    value: str
    step: str
    zero: str
    scale: str


@dataclass(frozen=True, slots=True)
class Activations:
    """The grid of a layer's inputs, with 2 ** `bits` levels.

    If `step` is given, it is the constant scale, and the inputs are first multiplied by `unsmooth`,
    float32 [in]. Otherwise each row has its own scale.
    """

    bits: int
    after_gelu: bool
    step: float | None = None
    unsmooth: Float32 | None = None

    @property
    def zero(self) -> int:
        """The integer that represents 0."""
        return int(2**self.bits) // (_GELU_SHARE if self._one_sided else 2)

    @property
    def steps(self) -> int:
        """The number of integers above `zero`."""
        return int(2**self.bits) - 1 - self.zero

    @property
    def _one_sided(self) -> bool:
        return self.after_gelu and self.step is None

    def restored(self, x: Float32) -> Float32:
        """Return `x`, float32 [rows, in], quantized and dequantized."""
        if self.step is None or self.unsmooth is None:
            return self._rounded(x, self._peak(x) / np.float32(self.steps))
        smoothed = self._rounded(x * self.unsmooth, np.float32(self.step))
        restored: Float32 = smoothed / self.unsmooth
        return restored

    def integers(self, graph: GraphWriter, name: str, x: str) -> Integers:
        """Add the operators that quantize `x`, float32 [1, tokens, in], to the layer's grid."""
        zero = graph.scalar(self.zero, np.uint8)
        if self.step is None or self.unsmooth is None:
            scale = self._scale(graph, x)
            steps = graph.op("Squeeze", scale, graph.constant(np.array([0, 2])))
            value = graph.op("QuantizeLinear", x, steps, self._zeros(graph, steps), axis=1)
            return Integers(value, graph.scalar(1), zero, scale)
        step = graph.scalar(self.step)
        smoothed = graph.op("Mul", x, graph.constant(self.unsmooth, f"{name}.unsmooth"))
        return Integers(graph.op("QuantizeLinear", smoothed, step, zero), step, zero, "")

    def _rounded(self, x: Float32, step: Float32 | np.float32) -> Float32:
        rounded: Float32 = np.clip(np.rint(x / step), -self.zero, self.steps) * step
        return rounded

    def _peak(self, x: Float32) -> Float32:
        magnitude, least = (x, _GELU_FLOOR) if self.after_gelu else (np.abs(x), _TINY)
        peak: Float32 = np.maximum(magnitude.max(axis=1, keepdims=True), np.float32(least))
        return peak

    def _scale(self, graph: GraphWriter, x: str) -> str:
        magnitude, least = (x, _GELU_FLOOR) if self.after_gelu else (graph.op("Abs", x), _TINY)
        last_axis = graph.constant(np.array([-1]))
        peak = graph.op("ReduceMax", magnitude, last_axis, keepdims=1)
        peak = graph.op("Max", peak, graph.scalar(least))
        return graph.op("Mul", peak, graph.scalar(1 / self.steps))

    def _zeros(self, graph: GraphWriter, steps: str) -> str:
        """Add a vector of `zero` per token, shared by all layers with the same grid."""
        zero = graph.constant(np.array([self.zero], np.uint8))
        return graph.shared(
            f"zeros of {self.zero}", lambda: graph.op("Expand", zero, graph.op("Shape", steps))
        )


def choose(layer: Observed, nearest: Callable[[Float32], Float32]) -> Activations:
    """Return the activation grid for the layer; `nearest` rounds weights to their grid."""
    per_row = Activations(8, layer.after_gelu)
    # Rows after a GELU differ most in size, and their scale costs one pass less.
    if layer.after_gelu:
        return per_row
    # Judged on a subset of rows and with weights rounded to nearest, as GPTQ takes much longer.
    few = max(1, len(layer.sample) // _ROWS_TO_CHOOSE)
    layer = replace(layer, sample=layer.sample[::few])
    weight = layer.linear.weight
    bearable = _TOLERANCE * output_error(layer, per_row, nearest(weight))
    least, chosen = bearable, per_row
    for alpha in _SMOOTHINGS:
        smooth = _smoothing(layer, alpha)
        step = max(float((layer.peak / smooth).max()) / per_row.steps, _TINY)
        static = Activations(8, layer.after_gelu, step, np.reciprocal(smooth))
        error = output_error(layer, static, nearest(weight * smooth) / smooth)
        if error <= least:
            least, chosen = error, static
    return chosen


def output_error(layer: Observed, activations: Activations, weight: Float32) -> float:
    """Return the squared error of the output rows relative to their energy, averaged over rows.

    `weight`, float32 [out, in], is the layer's quantized weight. The error is normalised per row
    because a few tokens' outputs can be a hundred times larger than all others and would dominate
    a joint error.
    """
    exact = layer.sample @ layer.linear.weight.T
    difference = activations.restored(layer.sample) @ weight.T - exact
    energy = np.square(exact).sum(axis=1) + _TINY
    return float((np.square(difference).sum(axis=1) / energy).mean())


def _smoothing(layer: Observed, alpha: float) -> Float32:
    """Return SmoothQuant's divisor per input channel, float32 [in], with a median of 1."""
    activations = np.maximum(layer.peak, _IDLE * layer.peak.max() + _TINY)
    largest = np.abs(layer.linear.weight).max(axis=0)
    weights = np.maximum(largest, _IDLE * largest.max() + _TINY)
    smooth: Float32 = activations**alpha / weights ** (1 - alpha)
    smooth /= np.median(smooth)
    return smooth.astype(np.float32)
