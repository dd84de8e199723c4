"""Weights of the modules after pooling."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sidecar.encoder.architecture import (
    Activation,
    Dense,
    Float32,
    Head,
    Linear,
    Norm,
    Step,
    UnitLength,
)
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.files import read_json
from sidecar.models.folder.formats import Store, finite
from sidecar.models.folder.pipeline import Module, Pipeline

Open: TypeAlias = Callable[[Path], Store]
"""Opens the weights in a module's folder."""

_LAYER_NORM_EPSILON = 1e-5  # torch's default, which the library keeps
# torch.nn classes, which the library instantiates without arguments.
_DEFAULT = "torch.nn.modules.activation.Tanh"
_ACTIVATIONS = {
    "ELU": Activation.ELU,
    "GELU": Activation.GELU,
    "Identity": Activation.IDENTITY,
    "LeakyReLU": Activation.LEAKY_RELU,
    "Mish": Activation.MISH,
    "ReLU": Activation.RELU,
    "SELU": Activation.SELU,
    "SiLU": Activation.SILU,
    "Sigmoid": Activation.SIGMOID,
    "Softplus": Activation.SOFTPLUS,
    "Softsign": Activation.SOFTSIGN,
    "Tanh": Activation.TANH,
}
_MODULES = {"torch.nn", "torch.nn.modules.activation", "torch.nn.modules.linear"}


def head_of(pipeline: Pipeline, open_weights: Open) -> Head:
    """Return the head formed by the pipeline's modules, with their weights.

    Raises `UnknownArchitectureError` for an activation that our graphs do not support, and
    `ModelError` for weights that do not match the module's config.
    """
    return Head(pipeline.pooling, tuple(_step(module, open_weights) for module in pipeline.behind))


def _step(module: Module, open_weights: Open) -> Step:
    if module.kind == "Normalize":
        return UnitLength()
    store = open_weights(module.folder)
    read = _layer_norm if module.kind == "LayerNorm" else _dense
    return read(module.folder, store)


def _layer_norm(folder: Path, store: Store) -> Norm:
    dimension = read_json(folder, "config.json").get("dimension")
    _check_tensors(folder, store, {"norm.weight": (dimension,), "norm.bias": (dimension,)})
    scale, bias = (finite(folder, store, f"norm.{part}") for part in ("weight", "bias"))
    return Norm(scale, bias, _LAYER_NORM_EPSILON)


def _dense(folder: Path, store: Store) -> Dense:
    config = read_json(folder, "config.json")
    inputs, outputs = config.get("in_features"), config.get("out_features")
    biased, use_residual = config.get("bias", True), config.get("use_residual", False)
    shapes: dict[str, tuple[object, ...]] = {"linear.weight": (outputs, inputs)}
    if biased:
        shapes["linear.bias"] = (outputs,)
    if use_residual and inputs != outputs:
        shapes["residual.weight"] = (outputs, inputs)
    _check_tensors(folder, store, shapes)
    weight = finite(folder, store, "linear.weight")
    return Dense(
        Linear(weight, finite(folder, store, "linear.bias") if biased else _zeros(len(weight))),
        _activation(folder, config.get("activation_function", _DEFAULT)),
        bool(use_residual),
        finite(folder, store, "residual.weight") if "residual.weight" in shapes else None,
    )


def _zeros(count: int) -> Float32:
    return np.zeros(count, np.float32)


def _activation(folder: Path, stated: object) -> Activation:
    module, _, name = str(stated).rpartition(".")
    if module not in _MODULES or name not in _ACTIVATIONS:
        raise UnknownArchitectureError(f"{folder}: activation {stated} is not supported")
    return _ACTIVATIONS[name]


def _check_tensors(folder: Path, store: Store, shapes: dict[str, tuple[object, ...]]) -> None:
    """Raise `ModelError` unless the stored tensors are exactly those in `shapes`."""
    found = {name: store.shape(name) for name in store.names()}
    if found != shapes:
        raise ModelError(f"{folder}: weights are {found}, but config.json says {shapes}")
