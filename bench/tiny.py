"""A BERT so small that its forward takes a tenth of a millisecond: what is left is overhead."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate

_HIDDEN, _INNER, _LAYERS, _POSITIONS, _VOCABULARY = 64, 128, 2, 96, 30_522


def write(folder: Path) -> Path:
    """Write the model, random weights and the default model's tokenizer, and return `folder`."""
    folder.mkdir()
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_size": _HIDDEN,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": _INNER,
        "max_position_embeddings": _POSITIONS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    weights = {n: 0.1 * rng.standard_normal(s).astype(np.float32) for n, s in _shapes()}
    save_file(weights, folder / "model.safetensors")
    shutil.copy(locate(DEFAULT_EMBEDDING_MODEL) / "tokenizer.json", folder)
    return folder


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    rows = {"word": _VOCABULARY, "position": _POSITIONS, "token_type": 2}
    for table, count in rows.items():
        yield f"embeddings.{table}_embeddings.weight", (count, _HIDDEN)
    yield from _norm("embeddings.LayerNorm")
    for at in (f"encoder.layer.{index}" for index in range(_LAYERS)):
        for part in ("query", "key", "value"):
            yield from _linear(f"{at}.attention.self.{part}", _HIDDEN, _HIDDEN)
        yield from _linear(f"{at}.attention.output.dense", _HIDDEN, _HIDDEN)
        yield from _norm(f"{at}.attention.output.LayerNorm")
        yield from _linear(f"{at}.intermediate.dense", _INNER, _HIDDEN)
        yield from _linear(f"{at}.output.dense", _HIDDEN, _INNER)
        yield from _norm(f"{at}.output.LayerNorm")


def _linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (_HIDDEN,)
    yield f"{name}.bias", (_HIDDEN,)
