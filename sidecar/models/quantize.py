"""The quality gate: quantize, compare with FP32, undo what costs too much."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from onnx import ModelProto

from sidecar.encoder import int4, int8
from sidecar.encoder.activations import output_error
from sidecar.encoder.architecture import Embeddings, Encoder, Float32
from sidecar.encoder.calibration import Observed, observe
from sidecar.encoder.folding import folded
from sidecar.encoder.graph import build
from sidecar.encoder.layerwise import Ids
from sidecar.encoder.quantized import QuantizedLinear, QuantizedRecipe, QuantizedTable
from sidecar.encoder.recipes import Float32Recipe
from sidecar.encoder.sequential import quantize_sequentially
from sidecar.encoder.tables import int4_table, int8_table
from sidecar.models.manifest import Quality
from sidecar.models.precision import Precision
from sidecar.models.rows import Row

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage, the number of steps done, and their total."""
Prove: TypeAlias = Callable[[ModelProto], Quality]

_KERNELS = {
    "none": "onnxruntime MatMul, fp32",
    "int8": "onnxruntime MatMulIntegerToFloat, u8 activations x s8 weights",
    "int4": "onnxruntime MatMulIntegerToFloat, u8 activations x s8 weights unpacked from 4 bits",
}
# Tokens to calibrate on: a least-squares fit needs several times as many as a layer has inputs, and
# only few of them cause the largest activations.
_TOKENS = 12_288
# The share of FP32's bytes that int4 may take, with some left for what is never quantized; and the
# bytes per weight, including its share of the scales.
_INT4_SHARE = 0.1485
_INT4_BYTES, _INT8_BYTES = 0.53, 1.01


@dataclass(frozen=True, slots=True)
class Quantized:
    """A graph that serves, and its measured closeness to FP32; None for FP32 itself.

    `kept` names the Linear layers that had to stay in FP32, in the order they were restored;
    `layers` is the number of layers with matrix products.
    """

    graph: ModelProto
    quantization: str
    layers: int
    quality: Quality | None = None
    kept: tuple[str, ...] = ()

    @property
    def kernel(self) -> str:
        """The kernel that multiplies or, in a model without layers, looks up tokens."""
        if self.layers:
            return _KERNELS[self.quantization]
        rows = "fp32" if self.quantization == "none" else self.quantization
        return f"onnxruntime Gather, {rows} rows"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A quantized model; `errors` are the output errors of its Linear layers, by name."""

    encoder: Encoder
    linears: Mapping[str, QuantizedLinear]
    tables: Mapping[str, QuantizedTable]
    errors: Mapping[str, float]


def in_fp32(encoder: Encoder) -> Quantized:
    """Return the model in FP32, as in its checkpoint."""
    return Quantized(build(encoder, Float32Recipe()), "none", len(encoder.layers))


def quantized(
    encoder: Encoder, rows: Sequence[Row], precision: Precision, prove: Prove, progress: Progress
) -> Quantized:
    """Return the model quantized, as much of it as passes `precision.floor`.

    Calibrates on as many of `rows` as hold about 12,000 tokens; `prove` measures a graph against
    FP32. While the mean is below the floor, the layer with the largest error goes back to FP32; if
    the embedding tables on their own cost too much, the whole model does.
    """
    quantization = "int4" if precision.quantization == "int4" else "int8"
    texts = [(row.ids[np.newaxis], row.token_types[np.newaxis]) for row in _spread(rows, _TOKENS)]
    make = _in_int4 if quantization == "int4" else _in_int8
    candidate = make(encoder, texts, precision.weight_bits, progress)
    worst_first = sorted(candidate.linears, key=lambda name: -candidate.errors[name])
    for count in range(len(worst_first) + 1):
        linears = {name: candidate.linears[name] for name in worst_first[count:]}
        graph = build(candidate.encoder, QuantizedRecipe(linears, candidate.tables))
        quality = prove(graph)
        progress("comparing with FP32", count + 1, len(worst_first) + 1)
        if quality.mean >= precision.floor:
            kept = tuple(worst_first[:count])
            return Quantized(graph, quantization, len(encoder.layers), quality, kept)
    return replace(in_fp32(encoder), kept=tuple(worst_first))


def _in_int8(
    encoder: Encoder, texts: Sequence[Ids], weight_bits: int, progress: Progress
) -> _Candidate:
    encoder = folded(encoder)
    linears: dict[str, QuantizedLinear] = {}
    errors: dict[str, float] = {}
    for name, layer in observe(encoder, texts):
        linears[name] = int8.calibrate(layer, weight_bits)
        errors[name] = _error(layer, linears[name])
        progress("quantizing", _layer_of(name) + 1, len(encoder.layers))
    tables = _tables(encoder.embeddings, int8_table)
    return _Candidate(encoder, linears, tables, errors)


def _in_int4(
    encoder: Encoder, texts: Sequence[Ids], weight_bits: int, progress: Progress
) -> _Candidate:
    last = len(encoder.layers) - _layers_in_eight_bits(encoder)
    errors: dict[str, float] = {}

    def quantize(name: str, layer: Observed) -> QuantizedLinear:
        method = int8.calibrate if _layer_of(name) >= last else int4.calibrate
        linear = method(layer, weight_bits)
        errors[name] = _error(layer, linear)
        return linear

    even = encoder.embeddings.word.shape[1] % 2 == 0  # two values share a byte
    tables = _tables(encoder.embeddings, int4_table if even else int8_table)
    found = quantize_sequentially(encoder, texts, tables, quantize, partial(progress, "quantizing"))
    return _Candidate(found.encoder, found.linears, tables, errors)


def _tables(
    embeddings: Embeddings, quantize: Callable[[Float32], QuantizedTable]
) -> dict[str, QuantizedTable]:
    """Return the quantized tables: words by `quantize`, positions in 8 bits."""
    tables = {"word": quantize(embeddings.word)}
    if embeddings.position is not None:
        tables["position"] = int8_table(embeddings.position)
    return tables


def _layers_in_eight_bits(encoder: Encoder) -> int:
    """Return how many of the last layers int4 leaves in 8 bits.

    Few or no layers follow them to even out their errors. One is always worth it; more are left if
    `_INT4_SHARE` of the model's bytes in FP32 allows it.
    """
    tables = encoder.embeddings.word.size
    layers = [
        sum(part.weight.size for part in (e.query_key_value, e.attention_output, e.up, e.down))
        for e in encoder.layers
    ]
    bearable = _INT4_SHARE * 4 * (tables + sum(layers))
    four = (tables + sum(layers)) * _INT4_BYTES
    extra = [size * (_INT8_BYTES - _INT4_BYTES) for size in layers]
    fit = [n for n in range(1, len(layers) + 1) if four + sum(extra[-n:]) <= bearable]
    return max(fit, default=1)


def _layer_of(name: str) -> int:
    return int(name.split(".")[1])  # "layer.3.up"


def _error(layer: Observed, linear: QuantizedLinear) -> float:
    return output_error(layer, linear.activations, linear.dense())


def _spread(rows: Sequence[Row], tokens: int) -> list[Row]:
    """Return an evenly spaced subset of `rows` that holds about `tokens` tokens."""
    total = sum(row.tokens for row in rows)
    count = max(1, min(len(rows), len(rows) * tokens // max(total, 1)))
    picks = np.linspace(0, len(rows) - 1, count).astype(np.int64)
    return [rows[pick] for pick in picks]
