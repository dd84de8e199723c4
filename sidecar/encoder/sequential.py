"""Layer-by-layer quantization in which each layer compensates for the errors before it.

Quantized separately, a layer reproduces its own outputs, but the errors of earlier layers remain.
Here each Linear layer is fed the actual outputs of the quantized layers before it, and its weight
is first fitted by least squares to the FP32 values at that place. If a residual is added to its
output, the layer also learns to correct the residual's error. Only then is the weight rounded, and
the bias absorbs the mean of the remaining error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from sidecar.encoder import layerwise
from sidecar.encoder.architecture import Encoder, Float32, Linear
from sidecar.encoder.calibration import Observed, evening, observed
from sidecar.encoder.layerwise import Ids, LinearInput
from sidecar.encoder.quantized import QuantizedLinear, QuantizedRecipe, QuantizedTable
from sidecar.encoder.recipes import Float32Recipe

Quantize: TypeAlias = Callable[[str, Observed], QuantizedLinear]


class _Part(NamedTuple):
    """A field of `Layer`, and the part whose input is the residual added to this one's output."""

    field: str
    residual: str | None = None


# In order of computation, keyed by their names in the graph.
_PARTS = {
    "qkv": _Part("query_key_value"),
    "attention_output": _Part("attention_output", "qkv"),
    "up": _Part("up"),
    "down": _Part("down", "up"),
}
# Ridge penalty on deviations from the trained weight, as a fraction of the inputs' mean square:
# there are few texts to fit on.
_RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class SequentialResult:
    """The encoder with fitted weights in FP32, and the quantized Linear layers by name."""

    encoder: Encoder
    linears: Mapping[str, QuantizedLinear]


def quantize_sequentially(
    encoder: Encoder,
    texts: Sequence[Ids],
    tables: Mapping[str, QuantizedTable],
    quantize: Quantize,
    step: Callable[[int, int], None],
) -> SequentialResult:
    """Return `encoder` quantized by `quantize`, called with the name and inputs of each layer.

    `step` is called with the number of finished Linear layers and their total.
    """
    linears: dict[str, QuantizedLinear] = {}
    recipe = QuantizedRecipe(linears, tables)  # `linears` is filled below
    exact = layerwise.run_embeddings(encoder, Float32Recipe(), texts)
    ours = layerwise.run_embeddings(encoder, recipe, texts)
    for index in range(len(encoder.layers)):
        wanted = layerwise.run_layer(encoder, index, Float32Recipe(), exact)
        for part in _PARTS:
            name = f"layer.{index}.{part}"
            fed = layerwise.run_layer(encoder, index, recipe, ours, _needed(name)).fed
            target, x = _target(name, wanted.fed, fed), np.concatenate(fed[name].rows)
            layer = _fitted(observed(fed[name]), x, target)
            del fed  # another copy of all rows
            linears[name] = quantize(name, layer)
            linear = _centered(layer.linear, linears[name], x, target)
            encoder = _replaced(encoder, index, part, linear)
            step(len(linears), len(_PARTS) * len(encoder.layers))
        exact, ours = wanted.texts, layerwise.run_layer(encoder, index, recipe, ours, ()).texts
    return SequentialResult(encoder, linears)


def _residual(name: str) -> str | None:
    """Return the name of the layer whose input is added to the output of `name`, if any."""
    layer, part = name.rsplit(".", 1)
    residual = _PARTS[part].residual
    return residual and f"{layer}.{residual}"


def _needed(name: str) -> set[str]:
    return {name, _residual(name) or name}


def _target(
    name: str, wanted: Mapping[str, LinearInput], fed: Mapping[str, LinearInput]
) -> Float32:
    """Return the outputs that make the sum after the layer match FP32, float32 [rows, out]."""
    linear = fed[name].linear
    target: Float32 = np.concatenate(wanted[name].rows) @ linear.weight.T + linear.bias
    if (residual := _residual(name)) is not None:
        target += np.concatenate(wanted[residual].rows) - np.concatenate(fed[residual].rows)
    return target


def _fitted(layer: Observed, x: Float32, target: Float32) -> Observed:
    """Return the layer fitted to map `x` to `target`, by ridge regression."""
    weight, bias = layer.linear.weight, layer.linear.bias
    even = evening(x)
    missing = target - (x @ weight.T + bias)
    mean = _mean(missing, even)
    gram = layer.gram.astype(np.float64)
    gram[np.diag_indices_from(gram)] += _RIDGE * np.trace(gram) / len(gram)
    moments = (x.T @ ((missing - mean) * np.square(even))).astype(np.float64)
    change = np.linalg.solve(gram, moments).T.astype(np.float32)
    return replace(layer, linear=Linear(weight + change, bias + mean))


def _centered(linear: Linear, quantized: QuantizedLinear, x: Float32, target: Float32) -> Linear:
    """Return the layer with its bias adjusted so that the quantized layer's mean error is zero."""
    given = quantized.activations.restored(x) @ quantized.dense().T + linear.bias
    return replace(linear, bias=linear.bias + _mean(target - given, evening(x)))


def _mean(errors: Float32, even: Float32) -> Float32:
    weights = np.square(even)
    mean: Float32 = (errors * weights).sum(axis=0) / weights.sum()
    return mean


def _replaced(encoder: Encoder, index: int, part: str, linear: Linear) -> Encoder:
    changes: dict[str, Any] = {_PARTS[part].field: linear}
    layer = replace(encoder.layers[index], **changes)
    return replace(encoder, layers=encoder.layers.changed(index, layer))
