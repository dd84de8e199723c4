"""A static model's folder: a table of token vectors and a tokenizer, without a config.json."""

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
# The library has no limit. A row's vectors are held while it is computed: 64 MiB at this many
# tokens of 1024 dimensions.
_LONGEST_ROW = 16_384
_TOKENIZER = "tokenizer.json"


def read_table(folder: Path, store: Store) -> Float32:
    """Return the vector of each token id, float32 [tokens, dimensions].

    sentence-transformers' own layout is read, and model2vec's: rows that several tokens share
    by a `mapping`, and a weight for each token. Raises `ModelError` for anything else.
    """
    names = store.names()
    if "embedding.weight" in names:
        return _two_dimensional(folder, finite(folder, store, "embedding.weight"))
    if "embeddings" not in names:
        raise ModelError(f"{folder} has neither a tensor embedding.weight nor embeddings")
    table = _two_dimensional(folder, finite(folder, store, "embeddings"))
    if "mapping" in names:
        table = table[_mapping(folder, len(table))]
    if "weights" not in names:
        return table
    weights = finite(folder, store, "weights")
    if weights.shape != table.shape[:1]:
        raise ModelError(f"{folder}: weights for {len(weights)} of {len(table)} tokens")
    weighted: Float32 = table * weights[:, np.newaxis]
    return weighted


def longest_static_row(folder: Path) -> int:
    """Return how many tokens of a text are taken: as many as the tokenizer cuts at, if it does."""
    truncation = read_json(folder, _TOKENIZER).get("truncation")
    if truncation is None:
        return _LONGEST_ROW
    if truncation.get("direction", "Right") != "Right":
        raise UnknownArchitectureError(f"{folder}: a static model that is cut at its beginning")
    return min(int(truncation["max_length"]), _LONGEST_ROW)


def static_tokenizer(folder: Path) -> str:
    """Return the tokenizer's JSON without what adds special tokens: the library adds none."""
    return json.dumps({**read_json(folder, _TOKENIZER), "post_processor": None, "padding": None})


def _two_dimensional(folder: Path, table: Float32) -> Float32:
    if table.ndim != 2:  # noqa: PLR2004
        raise ModelError(f"{folder}: a table of token vectors of {table.ndim} dimensions")
    return table


def _mapping(folder: Path, rows: int) -> NDArray[np.int64]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder}: a mapping of tokens is read from model.safetensors only")
    with safe_open(path, framework="numpy") as file:
        mapping: NDArray[np.int64] = file.get_tensor("mapping").astype(np.int64)
    if mapping.ndim != 1 or not ((mapping >= 0) & (mapping < rows)).all():
        raise ModelError(f"{path}: its mapping has rows that the table of {rows} does not")
    return mapping
