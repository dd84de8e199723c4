"""Model folders that tests change, and what our graph and the library make of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.model import Model
from sidecar.models.model import load as load_artifact
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.torch_model import TorchModel
from sidecar.models.torch_model import load as load_with_torch
from sidecar.models.torch_pipeline import Source

from ..later import Later

torch = Later("torch")
load_file = Later("safetensors.torch", "load_file")
save_file = Later("safetensors.torch", "save_file")
SentenceTransformer = Later("sentence_transformers", "SentenceTransformer")

MakeModel = Callable[..., Path]
Tensors = dict[str, Any]
TEXTS = ["a short text", "Another one, somewhat longer than the first; and naïve.", "word " * 200]
FLOAT32 = {"dtype": "float32"}
WHOLE = "model.safetensors"


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(folder / WHOLE)), folder / WHOLE)


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)
    }


def served(folder: Path, tmp_path: Path) -> Model:
    """Return the model on our own graph, in FP32."""
    output = tmp_path / "artifact"
    precision = Precision("none", weight_bits=7, floor=0)
    prepare(PrepareRequest(folder=folder, name="tiny", precision=precision, output=output))
    return load_artifact(output)


def by_torch(folder: Path, task: str = "embed") -> TorchModel:
    return load_with_torch(Source(folder, folder.name, task))  # type: ignore[arg-type]


def embedded(model: Model | TorchModel) -> np.ndarray:
    vectors = np.stack([model.forward(row) for row in model.tokenize(TEXTS)])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def expected(folder: Path) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=FLOAT32)
    return np.asarray(model.encode(TEXTS, batch_size=1, normalize_embeddings=True))


def refused(folder: Path) -> str:
    """Return why our graph leaves the folder to the library."""
    with pytest.raises(UnknownArchitectureError) as caught:
        read_encoder(folder, describe(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def broken(folder: Path) -> str:
    """Return why the folder's weights cannot be read at all."""
    with pytest.raises(ModelError) as caught:
        read_encoder(folder, describe(folder))
    assert not isinstance(caught.value, UnknownArchitectureError)
    assert "\n" not in str(caught.value)
    return str(caught.value)
