"""Folders of static models: a table of token vectors and a tokenizer, without a config.json."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from sidecar.encoder.architecture import Float32
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.files import read_json
from sidecar.models.folder.formats import Store, finite

FAMILY = "static"
# The library has no limit. This bounds the memory for a row's token vectors: 64 MiB at 1024
# dimensions.
_LONGEST_ROW = 16_384
_TOKENIZER = "tokenizer.json"


def read_table(folder: Path, store: Store) -> Float32:
    """Return the vector of each token id, float32 [tokens, dimensions].

    Two layouts are supported: sentence-transformers' own, and model2vec's, with a `mapping` from
    tokens to shared rows and a weight per token. Raises `ModelError` for any other.
    """
    names = store.names()
    if "embedding.weight" in names:
        return _two_dimensional(folder, finite(folder, store, "embedding.weight"))
    if "embeddings" not in names:
        raise ModelError(f"{folder} has neither a tensor embedding.weight nor a tensor embeddings")
    table = _two_dimensional(folder, finite(folder, store, "embeddings"))
    if "mapping" in names:
        table = table[_mapping(folder, len(table))]
    if "weights" not in names:
        return table
    weights = finite(folder, store, "weights")
    if weights.shape != table.shape[:1]:
        raise ModelError(f"{folder} has {len(weights)} token weights for {len(table)} tokens")
    weighted: Float32 = table * weights[:, np.newaxis]
    return weighted


def longest_static_row(folder: Path) -> int:
    """Return the maximum number of tokens per text: the tokenizer's own limit, if it has one."""
    truncation = read_json(folder, _TOKENIZER).get("truncation")
    if truncation is None:
        return _LONGEST_ROW
    if truncation.get("direction", "Right") != "Right":
        raise UnknownArchitectureError(f"{folder}: a static model must truncate on the right")
    return min(int(truncation["max_length"]), _LONGEST_ROW)


def static_tokenizer(folder: Path) -> str:
    """Return the tokenizer's JSON without its post-processor: the library adds no special tokens.

    Padding is disabled, too.
    """
    return json.dumps({**read_json(folder, _TOKENIZER), "post_processor": None, "padding": None})


def _two_dimensional(folder: Path, table: Float32) -> Float32:
    if table.ndim != 2:  # noqa: PLR2004
        raise ModelError(f"{folder}: the table of token vectors has {table.ndim} axes, not 2")
    return table


def _mapping(folder: Path, rows: int) -> NDArray[np.int64]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder}: a token mapping must be stored in model.safetensors")
    with safe_open(path, framework="numpy") as file:
        mapping: NDArray[np.int64] = file.get_tensor("mapping").astype(np.int64)
    if mapping.ndim != 1 or not ((mapping >= 0) & (mapping < rows)).all():
        raise ModelError(f"{path}: the mapping refers to rows outside the table of {rows} rows")
    return mapping
