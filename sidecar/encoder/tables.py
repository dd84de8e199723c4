"""Embedding tables in 8 and 4 bits; only the rows that are looked up are dequantized."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.rounding import quantize_rows

_FLOAT = 1  # onnx.TensorProto.FLOAT
_ROW_MAX = 127
_LARGEST_GROUP = 64
_LEVELS, _ZERO = 16, 8
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Int8Table:
    """A table in 8 bits: `rows` int8 [n, hidden], with per-row `scales` float32 [n, 1]."""

    rows: NDArray[np.int8]
    scales: Float32

    def lookup(self, graph: GraphWriter, name: str, ids: str) -> str:
        """Add the rows for `ids`, float32."""
        row = graph.op("Gather", graph.constant(self.rows, name), ids)
        scale = graph.op("Gather", graph.constant(self.scales, f"{name}.scale"), ids)
        return graph.op("Mul", graph.op("Cast", row, to=_FLOAT), scale)


@dataclass(frozen=True, slots=True)
class Int4Table:
    """A table in 4 bits: `packed` uint8 [n, hidden / 2].

    The low halves of a row's bytes are its first half, the high ones its second. `scales`, float16
    [n, groups], are per row and group. `channels`, float32 [hidden], normalise the channels first,
    because some consist of outliers in every row.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float16]
    channels: Float32

    def lookup(self, graph: GraphWriter, name: str, ids: str) -> str:
        """Add the rows for `ids`, float32."""
        row = graph.op("Gather", graph.constant(self.packed, name), ids)
        halves = (
            graph.op("BitwiseAnd", row, graph.scalar(_LEVELS - 1, np.uint8)),
            graph.op("BitShift", row, graph.scalar(4, np.uint8), direction="RIGHT"),
        )
        floats = graph.op("Cast", graph.op("Concat", *halves, axis=-1), to=_FLOAT)
        centered = graph.op("Sub", floats, graph.scalar(_ZERO))
        scale = graph.op("Gather", graph.constant(self.scales, f"{name}.scale"), ids)
        scale = graph.op("Cast", scale, to=_FLOAT)
        last = graph.constant(np.array([-1]))
        groups, hidden = self.scales.shape[1], len(self.channels)
        # Scales are applied by broadcasting: [..., groups, size] * [..., groups, 1].
        split = graph.constant(np.array([1, -1, groups, hidden // groups]))
        product = graph.op("Reshape", centered, split)
        product = graph.op("Mul", product, graph.op("Unsqueeze", scale, last))
        product = graph.op("Reshape", product, graph.constant(np.array([1, -1, hidden])))
        return graph.op("Mul", product, graph.constant(self.channels, f"{name}.channels"))

    def dense(self) -> Float32:
        """Return the dequantized table, float32 [n, hidden]."""
        integers = np.concatenate([self.packed % _LEVELS, self.packed // _LEVELS], axis=1)
        size = len(self.channels) // self.scales.shape[1]
        scales = np.repeat(self.scales.astype(np.float32), size, axis=1)
        dense: Float32 = (integers.astype(np.float32) - _ZERO) * scales * self.channels
        return dense


def int8_table(table: Float32) -> Int8Table:
    """Return `table`, float32 [n, hidden], in 8 bits."""
    return Int8Table(*quantize_rows(table, _ROW_MAX))


def int4_table(table: Float32) -> Int4Table:
    """Return `table`, float32 [n, hidden] with an even `hidden`, in 4 bits."""
    channels = np.sqrt(np.square(table).mean(axis=0)) + _TINY
    size = next(s for s in range(_LARGEST_GROUP, 0, -1) if table.shape[1] % s == 0)
    groups = (table / channels).reshape(len(table), -1, size)
    scales = _scales(groups).astype(np.float16)
    steps = np.maximum(scales.astype(np.float32), np.finfo(np.float16).tiny)[..., np.newaxis]
    integers = (np.clip(np.rint(groups / steps), -_ZERO, _LEVELS - 1 - _ZERO) + _ZERO).astype(
        np.uint8
    )
    low, high = np.split(integers.reshape(table.shape), 2, axis=1)
    return Int4Table(low | high << 4, scales, channels.astype(np.float32))


def _scales(groups: Float32) -> Float32:
    """Return the scale of each group that minimises its error, float32 [n, groups]."""
    peak = np.maximum(np.abs(groups).max(axis=-1), _TINY)
    best = np.full(peak.shape, np.inf, np.float32)
    scales = np.empty(peak.shape, np.float32)
    for clip in _CLIPS:
        scale = (peak * clip / (_ZERO - 0.5)).astype(np.float32)
        steps = scale[..., np.newaxis]
        rounded = np.clip(np.rint(groups / steps), -_ZERO, _LEVELS - 1 - _ZERO) * steps
        error = np.square(rounded - groups).sum(axis=-1)
        better = error < best
        best, scales = np.where(better, error, best), np.where(better, scale, scales)
    return scales
