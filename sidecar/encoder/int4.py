"""INT4: two weights per byte, multiplied as 8-bit integers, with a scale per group of inputs.

No instruction multiplies 4-bit weights, and unpacking them costs more than it saves unless it is
nearly free. Here it is: a byte `16 * high + low` is itself an 8-bit weight for one half of the
inputs, on a grid with steps of 16 that is offset by `low`, which has been rounded first. 16 times
the byte, in which `high` overflows away, is a weight for the other half. So one multiplication per
byte unpacks two weights, and 8-bit instructions do the rest.

The inputs are split into groups of at most 192, each with a scale and a zero point per output; the
groups' products are summed in a fixed order. Group i occupies the low halves of the bytes whose
high halves belong to group i + groups / 2.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.activations import Activations, Integers, choose
from sidecar.encoder.architecture import Float32
from sidecar.encoder.calibration import Observed
from sidecar.encoder.int8 import smoothed
from sidecar.encoder.nodes import CONTRIB, GraphWriter
from sidecar.encoder.rounding import Float64, round_columns
from sidecar.encoder.saturation import nearest

_BYTE = 8
_LARGEST_GROUP = 192
_STEP = 16  # between neighbouring 4-bit weights on the 8-bit grid
_LEVELS = 16
_LEAST, _MOST = -8, 7
# Candidate ranges for a group, as fractions of its full range: clipping the few largest weights
# makes the steps smaller for all others.
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Int4Linear:
    """A Linear layer in 4 bits: `packed` int8 [groups / 2, size, out], two weights per byte.

    `scales` float32 and `zeros` int8 are [groups, out]. If the activations are smoothed, these are
    the weights of the smoothed layer.
    """

    packed: NDArray[np.int8]
    scales: Float32
    zeros: NDArray[np.int8]
    activations: Activations

    def dense(self) -> Float32:
        """Return the dequantized weight for inputs before smoothing, float32 [out, in]."""
        integers = np.concatenate([self.packed * np.int8(_STEP), self.packed]).astype(np.float32)
        weight = (integers - self.zeros[:, np.newaxis]) * self.scales[:, np.newaxis]
        dense: Float32 = weight.reshape(-1, weight.shape[-1]).T
        unsmooth = self.activations.unsmooth
        return dense if unsmooth is None else dense * unsmooth

    def part(self, index: int, parts: int) -> "Int4Linear":
        """Return the layer restricted to one of `parts` equal parts of its outputs."""
        size = self.packed.shape[-1] // parts
        own = slice(index * size, (index + 1) * size)
        return replace(
            self,
            packed=self.packed[..., own],
            scales=self.scales[:, own],
            zeros=self.zeros[:, own],
        )

    def product(self, graph: GraphWriter, name: str, fed: Integers, bias: Float32 | None) -> str:
        """Add the product, float32 [1, tokens, out], before scaling by the rows' own scales."""
        pairs = len(self.packed)
        inputs = graph.op_n(2 * pairs, "Split", fed.value, axis=-1, num_outputs=2 * pairs)
        step = graph.scalar(_STEP, np.int8)
        packed = [graph.constant(self.packed[i], f"{name}.{i}") for i in range(pairs)]
        weights = [*(graph.op("Mul", each, step) for each in packed), *packed]
        products = []
        for i, weight in enumerate(weights):
            scales = graph.constant(self.scales[i], f"{name}.scale.{i}")
            zeros = graph.constant(self.zeros[i], f"{name}.zero.{i}")
            tail = [graph.constant(bias, f"{name}.bias")] if bias is not None and i == 0 else []
            group = [inputs[i], weight, fed.step, scales, fed.zero, zeros, *tail]
            products.append(graph.op("MatMulIntegerToFloat", *group, domain=CONTRIB))
        return graph.op("Sum", *products)


def calibrate(layer: Observed, weight_bits: int) -> Int4Linear:
    """Return the layer in 4 bits.

    The bytes use all 8 bits, so if the host's multiplication allows only 7 (`weight_bits`), the
    activations give up a bit instead: 7 bits with per-row scales.
    """
    saturates = weight_bits < _BYTE
    activations = (
        Activations(weight_bits, layer.after_gelu)
        if saturates
        else choose(layer, partial(nearest, saturates=False))
    )
    weight, gram = smoothed(layer, activations)
    grid = _Grid(np.diag(gram), len(weight), group_size(weight.shape[1]))
    round_columns(weight, gram, grid.rounded, grid.size)
    return Int4Linear(grid.packed(), grid.scales, grid.zeros, activations)


def group_size(inputs: int) -> int:
    """Return the largest size up to 192 that splits `inputs` into an even number of groups."""
    return next(size for size in range(_LARGEST_GROUP, 0, -1) if inputs % (2 * size) == 0)


class _Grid:
    """Determines each group's scale and zero point, and rounds its columns."""

    def __init__(self, importance: Float32, outputs: int, size: int) -> None:
        inputs = len(importance)
        self.size = size
        self.scales = np.empty((inputs // size, outputs), np.float32)
        self.zeros = np.empty((inputs // size, outputs), np.int8)
        self._importance = importance[:, np.newaxis]
        self._integers = np.empty((inputs, outputs), np.int8)

    def rounded(self, j: int, rest: Float64) -> Float64:
        """Return column j rounded to the grid; see `round_columns`."""
        group = j // self.size
        if j % self.size == 0:
            self._fit(group, rest[: self.size])
        scale, zero = self.scales[group], self.zeros[group]
        integers = _nearest(rest[0] / scale + zero, self._displaced(j, j + 1)[0])
        self._integers[j] = integers
        nearest: Float64 = (integers - zero) * scale
        return nearest

    def packed(self) -> NDArray[np.int8]:
        """Return the bytes, int8 [groups / 2, size, out]. Call it after rounding all columns."""
        high = self._integers[len(self._integers) // 2 :]
        return high.reshape(-1, self.size, high.shape[1])

    def _displaced(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the offsets of the grid of columns start to end, due to the low halves."""
        first_high = len(self._integers) // 2
        if start < first_high:
            return np.zeros((end - start, self._integers.shape[1]), np.int64)
        low = self._integers[start - first_high : end - first_high].astype(np.int64) // _STEP
        displaced: NDArray[np.int64] = low % _LEVELS
        return displaced

    def _fit(self, group: int, columns: Float64) -> None:
        start = group * self.size
        displaced = self._displaced(start, start + self.size)
        importance = self._importance[start : start + self.size]
        least, most = columns.min(axis=0).clip(max=0), columns.max(axis=0).clip(min=0)
        # The middle of the grid: that of -128 ... 112 for the low halves, plus the mean offset,
        # about 7.5, for the high ones. As the range contains 0, the zero point is within 120 of
        # the middle, so within -128 ... 127.
        middle = displaced.mean(axis=0) - _STEP / 2
        errors, scales, zeros = [], [], []
        for clip in _CLIPS:
            scale = np.maximum((most - least) * clip, _TINY) / ((_LEVELS - 1) * _STEP)
            zero = np.rint(middle - (most + least) / 2 * clip / scale)
            rounded = (_nearest(columns / scale + zero, displaced) - zero) * scale
            errors.append((np.square(rounded - columns) * importance).sum(axis=0))
            scales.append(scale)
            zeros.append(zero)
        best = np.argmin(errors, axis=0)[np.newaxis]
        self.scales[group] = np.take_along_axis(np.array(scales), best, axis=0)[0]
        self.zeros[group] = np.take_along_axis(np.array(zeros), best, axis=0)[0]


def _nearest(value: Float64, displaced: NDArray[np.int64]) -> Float64:
    """Return the nearest of 16 * (-8 ... 7) + `displaced`."""
    steps = np.clip(np.rint((value - displaced) / _STEP), _LEAST, _MOST)
    nearest: Float64 = steps * _STEP + displaced
    return nearest
