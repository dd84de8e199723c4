"""INT8: weights with a scale per output, rounded by GPTQ and multiplied directly."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.activations import Activations, Integers, choose
from sidecar.encoder.architecture import Float32
from sidecar.encoder.calibration import Observed
from sidecar.encoder.nodes import CONTRIB, GraphWriter
from sidecar.encoder.saturation import nearest, round_pairs, scales_of

_BYTE = 8


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """A Linear layer in 8 bits: `rows` int8 [out, in], `scales` float32 [out].

    If the activations are smoothed, these are the rows of the smoothed weight.
    """

    rows: NDArray[np.int8]
    scales: Float32
    activations: Activations

    def dense(self) -> Float32:
        """Return the dequantized weight for inputs before smoothing, float32 [out, in]."""
        weight: Float32 = self.rows * self.scales[:, np.newaxis]
        unsmooth = self.activations.unsmooth
        return weight if unsmooth is None else weight * unsmooth

    def product(self, graph: GraphWriter, name: str, fed: Integers, bias: Float32 | None) -> str:
        """Add the product, float32 [1, tokens, out], before scaling by the rows' own scales."""
        weight = graph.constant(self.rows.T, name)
        scales = graph.constant(self.scales, f"{name}.scale")
        tail = [] if bias is None else ["", graph.constant(bias, f"{name}.bias")]
        inputs = [fed.value, weight, fed.step, scales, fed.zero, *tail]
        return graph.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB)

    def part(self, index: int, parts: int) -> "Int8Linear":
        """Return the layer restricted to one of `parts` equal parts of its outputs."""
        size = len(self.rows) // parts
        own = slice(index * size, (index + 1) * size)
        return replace(self, rows=self.rows[own], scales=self.scales[own])


def calibrate(layer: Observed, weight_bits: int) -> Int8Linear:
    """Return the layer in 8 bits, calibrated on its inputs; `weight_bits` is 7 or 8."""
    saturates = weight_bits < _BYTE
    activations = choose(layer, partial(nearest, saturates=saturates))
    weight, gram = smoothed(layer, activations)
    scales = scales_of(weight, np.diag(gram), saturates=saturates)
    grid = round_pairs(weight, gram, scales, saturates=saturates)
    rows = np.rint(grid / scales[:, np.newaxis]).astype(np.int8)
    return Int8Linear(rows, scales, activations)


def smoothed(layer: Observed, activations: Activations) -> tuple[Float32, Float32]:
    """Return the weight and the inputs' second moments after smoothing."""
    weight, unsmooth = layer.linear.weight, activations.unsmooth
    if unsmooth is None:
        return weight, layer.gram
    return weight / unsmooth, layer.gram * np.outer(unsmooth, unsmooth)
