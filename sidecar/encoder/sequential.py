"""Quantizing a model layer by layer, each layer making up for those before it.

A layer that is quantized by itself reproduces its own outputs; what the layers before it have
lost is lost. Here each Linear layer is fed what the quantized ones before it really give, and
its weight is first fitted, by least squares, to what FP32 has at that place. Where a residual
is added behind it, the layer also learns to take back what the residual has lost. Only then
the weight is rounded, and its bias takes up the error that is left in the mean.
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
    """A `Layer`'s field, and the part whose input is the residual added to this one's output."""

    field: str
    residual: str | None = None


# In the order of their computation, by their names in the graph.
_PARTS = {
    "qkv": _Part("query_key_value"),
    "attention_output": _Part("attention_output", "qkv"),
    "up": _Part("up"),
    "down": _Part("down", "up"),
}
# How strongly the fit is held to the weight that was trained, as a share of the inputs' mean
# square: the texts to fit on are few.
_RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class SequentialResult:
    """The encoder with its fitted weights in FP32, and what became of them, by name."""

    encoder: Encoder
    linears: Mapping[str, QuantizedLinear]


def quantize_sequentially(
    encoder: Encoder,
    texts: Sequence[Ids],
    tables: Mapping[str, QuantizedTable],
    quantize: Quantize,
    step: Callable[[int, int], None],
) -> SequentialResult:
    """Return `encoder` quantized by `quantize`, which is given each layer's name and inputs.

    `step` is told how many Linear layers are done, and of how many.
    """
    linears: dict[str, QuantizedLinear] = {}
    recipe = QuantizedRecipe(linears, tables)  # sees what is added to `linears`
    exact = layerwise.run_embeddings(encoder, Float32Recipe(), texts)
    ours = layerwise.run_embeddings(encoder, recipe, texts)
    for index in range(len(encoder.layers)):
        wanted = layerwise.run_layer(encoder, index, Float32Recipe(), exact)
        for part in _PARTS:
            name = f"layer.{index}.{part}"
            fed = layerwise.run_layer(encoder, index, recipe, ours, _needed(name)).fed
            target, x = _target(name, wanted.fed, fed), np.concatenate(fed[name].rows)
            layer = _fitted(observed(fed[name]), x, target)
            del fed  # all texts' rows once more
            linears[name] = quantize(name, layer)
            linear = _centered(layer.linear, linears[name], x, target)
            encoder = _with(encoder, index, part, linear)
            step(len(linears), len(_PARTS) * len(encoder.layers))
        exact, ours = wanted.texts, layerwise.run_layer(encoder, index, recipe, ours, ()).texts
    return SequentialResult(encoder, linears)


def _residual(name: str) -> str | None:
    """Return the name of the layer whose input is added to the output of `name`."""
    layer, part = name.rsplit(".", 1)
    residual = _PARTS[part].residual
    return residual and f"{layer}.{residual}"


def _needed(name: str) -> set[str]:
    return {name, _residual(name) or name}


def _target(
    name: str, wanted: Mapping[str, LinearInput], fed: Mapping[str, LinearInput]
) -> Float32:
    """Return what the layer has to give for FP32's sum behind it, float32 [rows, out]."""
    linear = fed[name].linear
    target: Float32 = np.concatenate(wanted[name].rows) @ linear.weight.T + linear.bias
    if (residual := _residual(name)) is not None:
        target += np.concatenate(wanted[residual].rows) - np.concatenate(fed[residual].rows)
    return target


def _fitted(layer: Observed, x: Float32, target: Float32) -> Observed:
    """Return the layer that comes closest to `target` on `x`, by ridge regression."""
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
    """Return the layer with the bias that leaves no error in the mean once it is quantized."""
    given = quantized.activations.restored(x) @ quantized.dense().T + linear.bias
    return replace(linear, bias=linear.bias + _mean(target - given, evening(x)))


def _mean(errors: Float32, even: Float32) -> Float32:
    weights = np.square(even)
    mean: Float32 = (errors * weights).sum(axis=0) / weights.sum()
    return mean


def _with(encoder: Encoder, index: int, part: str, linear: Linear) -> Encoder:
    changes: dict[str, Any] = {_PARTS[part].field: linear}
    layer = replace(encoder.layers[index], **changes)
    return replace(encoder, layers=encoder.layers.changed(index, layer))
