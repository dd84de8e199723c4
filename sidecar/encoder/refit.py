"""Quantizing a model layer by layer, each layer making up for those before it.

A layer that is quantized by itself reproduces its own outputs; what the layers before it have
lost is lost. Here each Linear layer is fed what the quantized ones before it really give, and
its weight is first fitted, by least squares, to what FP32 has at that place. Where a residual
is added behind it, the layer also learns to take back what the residual has lost. Only then
the weight is rounded, and its bias takes up the error that is left in the mean.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Encoder, Float32, Linear
from sidecar.encoder.calibration import Gathering, Observed, Tapping, evening, tapped
from sidecar.encoder.graph import build_embeddings, build_layer
from sidecar.encoder.quantized import QuantizedLinear, QuantizedRecipe, QuantizedTable
from sidecar.encoder.recipes import Float32Recipe, Recipe
from sidecar.encoder.runtime import Session
from sidecar.host import read_host

Row: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
Quantize: TypeAlias = Callable[[str, Observed], QuantizedLinear]

# The parts of a layer in the order of their computation, and whose input is the residual that
# is added to a part's output.
_PARTS = {
    "qkv": ("query_key_value", None),
    "attention_output": ("attention_output", "qkv"),
    "up": ("up", None),
    "down": ("down", "up"),
}
# How strongly the fit is held to the weight that was trained, as a share of the inputs' mean
# square: the texts to fit on are few.
_RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class Refitted:
    """The encoder with its fitted weights in FP32, and what became of them, by name."""

    encoder: Encoder
    linears: Mapping[str, QuantizedLinear]


@dataclass(frozen=True, slots=True)
class _Passed:
    """What feeds each part, by part and text, and what comes out; float32 [tokens, …] each."""

    inputs: Mapping[str, Sequence[Float32]]
    outputs: Sequence[Float32]


def refit(
    encoder: Encoder,
    texts: Sequence[Row],
    tables: Mapping[str, QuantizedTable],
    quantize: Quantize,
    step: Callable[[int, int], None],
) -> Refitted:
    """Return `encoder` quantized by `quantize`, which is given each layer's name and inputs.

    `texts` are ids and token types, int64 [1, tokens]. `step` is told how many Linear layers
    are done, and of how many.
    """
    linears: dict[str, QuantizedLinear] = {}
    recipe = QuantizedRecipe(linears, tables)  # sees what is added to `linears`
    exact, ours = _embed(encoder, Float32Recipe(), texts), _embed(encoder, recipe, texts)
    for index in range(len(encoder.layers)):
        wanted = _through(encoder, index, Float32Recipe(), exact)
        for part in _PARTS:
            fed = _through(encoder, index, recipe, ours).inputs
            name, linear = f"layer.{index}.{part}", _linear(encoder, index, part)
            target = _target(part, linear, wanted.inputs, fed)
            layer = _fitted(_observe(linear, part, fed[part]), np.concatenate(fed[part]), target)
            linears[name] = quantize(name, layer)
            linear = _centered(layer.linear, linears[name], np.concatenate(fed[part]), target)
            encoder = _with(encoder, index, part, linear)
            step(len(linears), len(_PARTS) * len(encoder.layers))
        exact, ours = wanted.outputs, _through(encoder, index, recipe, ours).outputs
    return Refitted(encoder, linears)


def _embed(encoder: Encoder, recipe: Recipe, texts: Sequence[Row]) -> Sequence[Float32]:
    session = Session(build_embeddings(encoder, recipe).SerializeToString())
    return [
        session.run_for(["hidden"], {"ids": ids, "token_types": token_types})[0][0]
        for ids, token_types in texts
    ]


def _through(encoder: Encoder, index: int, recipe: Recipe, texts: Sequence[Float32]) -> _Passed:
    tapping = Tapping(recipe)
    model = tapped(build_layer(encoder, index, tapping), tapping)
    session = Session(model.SerializeToString())
    values = [*(tap.value for tap in tapping.taps.values()), "hidden"]
    with ThreadPoolExecutor(read_host().cores) as pool:
        passed = pool.map(lambda x: session.run_for(values, {"x": x[np.newaxis]}), texts)
    *inputs, outputs = ([value[0] for value in column] for column in zip(*passed, strict=True))
    return _Passed(dict(zip(_PARTS, inputs, strict=True)), outputs)


def _target(
    part: str,
    linear: Linear,
    wanted: Mapping[str, Sequence[Float32]],
    fed: Mapping[str, Sequence[Float32]],
) -> Float32:
    """Return what the part has to give for FP32's sum behind it, float32 [rows, out]."""
    target: Float32 = np.concatenate(wanted[part]) @ linear.weight.T + linear.bias
    _, residual = _PARTS[part]
    if residual is not None:
        target += np.concatenate(wanted[residual]) - np.concatenate(fed[residual])
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


def _observe(linear: Linear, part: str, fed: Sequence[Float32]) -> Observed:
    gathering = Gathering(linear, after_gelu=part == "down")
    for rows in fed:
        gathering.add(rows)
    return gathering.observed()


def _centered(linear: Linear, quantized: QuantizedLinear, x: Float32, target: Float32) -> Linear:
    """Return the layer with the bias that leaves no error in the mean once it is quantized."""
    given = quantized.activations.restored(x) @ quantized.dense().T + linear.bias
    return replace(linear, bias=linear.bias + _mean(target - given, evening(x)))


def _mean(errors: Float32, even: Float32) -> Float32:
    weights = np.square(even)
    mean: Float32 = (errors * weights).sum(axis=0) / weights.sum()
    return mean


def _linear(encoder: Encoder, index: int, part: str) -> Linear:
    linear: Linear = getattr(encoder.layers[index], _PARTS[part][0])
    return linear


def _with(encoder: Encoder, index: int, part: str, linear: Linear) -> Encoder:
    layers = list(encoder.layers)
    changes: dict[str, Any] = {_PARTS[part][0]: linear}
    layers[index] = replace(layers[index], **changes)
    return replace(encoder, layers=tuple(layers))
