"""INT8: weights with a scale per output, rounded by GPTQ, multiplied as they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.activations import Activations, Integers, choose
from sidecar.encoder.architecture import Float32
from sidecar.encoder.calibration import Observed
from sidecar.encoder.nodes import CONTRIB, GraphWriter
from sidecar.encoder.rounding import Float64, round_columns, row_scales

# AVX2's 8-bit multiply adds two u8*s8 products in 16 bits: 2 * 255 * 64 < 2^15 never
# saturates, 2 * 255 * 127 does. With weights in +-64 the same artifact is exact on every
# instruction set; with dot-product instructions +-127 is, too.
WEIGHT_MAX = {7: 64, 8: 127}


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """A Linear layer in 8 bits: `rows` int8 [out, in], `scales` float32 [out].

    Where the activations are smoothed, the rows are those of the smoothed weight.
    """

    rows: NDArray[np.int8]
    scales: Float32
    activations: Activations

    def dense(self) -> Float32:
        """Return the weight that is multiplied in effect, float32 [out, in]."""
        weight: Float32 = self.rows * self.scales[:, np.newaxis]
        unsmooth = self.activations.unsmooth
        return weight if unsmooth is None else weight * unsmooth

    def product(self, graph: GraphWriter, name: str, fed: Integers, bias: str = "") -> str:
        """Add the multiplication, float32 [1, tokens, out], before the rows' own scale."""
        weight = graph.constant(self.rows.T, name)
        scales = graph.constant(self.scales, f"{name}.scale")
        tail = ["", bias] if bias else []
        inputs = [fed.value, weight, fed.step, scales, fed.zero, *tail]
        return graph.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB)


def calibrate(layer: Observed, weight_bits: int) -> Int8Linear:
    """Return the layer in 8 bits as its inputs bear best; `weight_bits` is 7 or 8."""
    largest = WEIGHT_MAX[weight_bits]
    activations = choose(layer, largest)
    weight, gram = smoothed(layer, activations)
    scales = row_scales(weight, largest)[:, 0]

    def rounded(_: int, rest: Float64) -> Float64:
        nearest: Float64 = np.clip(np.rint(rest[0] / scales), -largest, largest) * scales
        return nearest

    grid = round_columns(weight, gram, rounded)
    rows = np.rint(grid / scales[:, np.newaxis]).astype(np.int8)
    return Int8Linear(rows, scales, activations)


def smoothed(layer: Observed, activations: Activations) -> tuple[Float32, Float32]:
    """Return the weight and the inputs' second moments as they are behind the smoothing."""
    weight, unsmooth = layer.linear.weight, activations.unsmooth
    if unsmooth is None:
        return weight, layer.gram
    return weight / unsmooth, layer.gram * np.outer(unsmooth, unsmooth)
