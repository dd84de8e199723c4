"""The weights of a model's folder, in the shapes that the graph builder takes."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from sidecar.encoder.architecture import Encoder, Float32, UnsupportedModelError
from sidecar.encoder.families import FAMILIES
from sidecar.models.description import Description
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.files import read_json

_FLOATS = {"F64", "F32", "F16"}


def read_encoder(folder: Path, description: Description) -> Encoder:
    """Return the model's weights as float32 in the shape that the graph builder takes.

    Its layers are read whenever they are asked for, so the file has to stay as it is.

    Raises `ModelError` where a tensor is missing or not a floating-point one.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder} has no model.safetensors (other weight formats are not read)")
    try:
        weights = safe_open(path, framework="numpy")  # open for as long as the encoder lives
        family = FAMILIES[description.family]
        tensor = _tensors(weights, family.prefix)
        encoder = family.read(read_json(folder, "config.json"), tensor, description.pooling)
        deque(encoder.layers, maxlen=0)  # what is missing is missed here
    except UnsupportedModelError as error:
        raise UnknownArchitectureError(f"{folder}: {error}") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error
    return encoder


def _tensors(weights: Any, prefix: str) -> Callable[[str], Float32]:
    names = set(weights.keys())

    def tensor(name: str) -> Float32:
        for full in (name, prefix + name):
            if full in names:
                return _float32(full, weights)
        raise KeyError(f"tensor {name!r} is missing")

    return tensor


def _float32(name: str, weights: Any) -> Float32:
    kind = weights.get_slice(name).get_dtype()
    if kind not in _FLOATS:
        raise ValueError(f"tensor {name!r} is {kind}; readable are {', '.join(sorted(_FLOATS))}")
    array: Float32 = weights.get_tensor(name).astype(np.float32, copy=False)
    return array
