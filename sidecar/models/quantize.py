"""The quality gate: quantize, compare with FP32, take back what costs too much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from onnx import ModelProto

from sidecar.encoder.architecture import Encoder
from sidecar.encoder.calibration import Observed, observe
from sidecar.encoder.graph import build
from sidecar.encoder.int8 import Int8Linear, Int8Recipe, calibrate, output_error
from sidecar.encoder.recipes import Float32Recipe
from sidecar.models.manifest import Quality
from sidecar.models.precision import Precision
from sidecar.models.rows import Row

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and of how much."""
Prove: TypeAlias = Callable[[ModelProto], Quality]


@dataclass(frozen=True, slots=True)
class Quantized:
    """A graph that serves, and its measured closeness to FP32; None for FP32 itself.

    `kept` names the Linear layers that had to stay in FP32, in the order of their going back.
    """

    graph: ModelProto
    kernel: str
    quality: Quality | None
    kept: tuple[str, ...] = ()


def in_fp32(encoder: Encoder) -> Quantized:
    """Return the model as its checkpoint says."""
    recipe = Float32Recipe()
    return Quantized(build(encoder, recipe), recipe.kernel, None)


def in_int8(
    encoder: Encoder, rows: Sequence[Row], precision: Precision, prove: Prove, progress: Progress
) -> Quantized:
    """Return the model in INT8, as much of it as passes `precision.floor`.

    `rows` are calibrated on, `prove` measures a graph against FP32. While the mean is under
    the floor, the layer with the largest error of its own goes back to FP32; where even the
    embedding tables alone cost too much, the whole model does.
    """
    observed = _observe(encoder, rows, progress)
    linears = _calibrate(observed, precision.weight_bits, progress)
    worst_first = sorted(linears, key=lambda name: -output_error(observed[name], linears[name]))
    for count in range(len(worst_first) + 1):
        kept = tuple(worst_first[:count])
        recipe = Int8Recipe({name: linears[name] for name in worst_first[count:]})
        graph = build(encoder, recipe)
        quality = prove(graph)
        progress("comparing with FP32", count + 1, len(worst_first) + 1)
        if quality.mean >= precision.floor:
            return Quantized(graph, recipe.kernel, quality, kept)
    return replace(in_fp32(encoder), kept=tuple(worst_first))


def _observe(encoder: Encoder, rows: Sequence[Row], progress: Progress) -> dict[str, Observed]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("calibrating", done, len(rows))

    texts = ((row.ids[np.newaxis], row.token_types[np.newaxis]) for row in rows)
    return observe(encoder, texts, step)


def _calibrate(
    observed: dict[str, Observed], weight_bits: int, progress: Progress
) -> dict[str, Int8Linear]:
    linears: dict[str, Int8Linear] = {}
    for name, layer in observed.items():
        linears[name] = calibrate(layer, weight_bits)
        progress("quantizing", len(linears), len(observed))
    return linears
