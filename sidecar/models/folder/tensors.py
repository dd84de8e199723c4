"""A checkpoint's tensors by their canonical names, checked to be complete and all used.

transformers loads a model even if tensors are missing, which it initialises at random, and ignores
tensors that it does not know. Both are errors here, as are NaN, infinity and shapes that
contradict the config.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sidecar.encoder.architecture import Classifier, Encoder, Float32, Layer, UnsupportedModelError
from sidecar.models.errors import ModelError
from sidecar.models.folder.formats import Store

# As in transformers' "legacy" conversion.
_RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# Tensors of checkpoints that a pipeline does not use: a buffer of older versions, the pooler of the
# first token, and the heads that the model was trained with.
_KNOWN_TO_BE_UNUSED = re.compile(
    r"(^|\.)position_ids$"
    r"|^(pooler|classifier|pre_classifier|cls|lm_head|qa_outputs)\."
    r"|^(vocab_transform|vocab_layer_norm|vocab_projector)\."
    r"|^(discriminator_predictions|generator_predictions|generator_lm_head)\."
)
_NAMED = 3  # how many of many tensors a message lists


class Tensors:
    """The tensors of `weights`, whose names may start with `prefix`, checked against `config`.

    `where` is their folder, for messages.
    Raises `UnsupportedModelError` if two stored names denote the same tensor.
    """

    def __init__(self, where: Path, weights: Store, prefix: str, config: Mapping[str, Any]) -> None:
        self._where = where
        self._weights = weights
        self._stored: dict[str, str] = {}
        for stored in sorted(weights.names()):
            name = canonical(stored, prefix)
            if name in self._stored:
                raise UnsupportedModelError(f"tensor {name!r} is stored twice, also as {stored!r}")
            self._stored[name] = stored
        self._tables = _tables(config)
        self._read: set[str] = set()

    def tensor(self, name: str) -> Float32:
        """Return the tensor `name` as float32.

        Raises `UnsupportedModelError` if it is missing or its shape contradicts the config, and
        `ModelError` if it holds NaN or infinity.
        """
        if name not in self._stored:
            raise UnsupportedModelError(f"tensor {name!r} is missing")
        found = self._weights.tensor(self._stored[name])
        if name not in self._read:  # layers are read repeatedly, but checked once
            _check_shape(name, found, self._tables.get(name, found.shape))
            self._check_finite(name, found)
            self._read.add(name)
        return found

    def _check_finite(self, name: str, found: Float32) -> None:
        if not np.isfinite(found.sum(dtype=np.float64)):  # a sum needs no temporary array
            stored = self._stored[name]
            raise ModelError(f"{self._where}: tensor {stored!r} holds NaN or infinity")

    def refuse_unused(self) -> None:
        """Raise `UnsupportedModelError` if unread tensors remain, except known unused ones."""
        left = sorted(
            self._stored[name]
            for name in self._stored.keys() - self._read
            if not _KNOWN_TO_BE_UNUSED.search(name)
        )
        if left:
            raise UnsupportedModelError(f"unexpected {named(left)}")


def canonical(stored: str, prefix: str) -> str:
    """Return the canonical name of the tensor that a checkpoint stores as `stored`."""
    name = stored.removeprefix(prefix)
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def is_known_to_be_unused(name: str) -> bool:
    """Whether pipelines never use the tensor with this canonical `name`."""
    return bool(_KNOWN_TO_BE_UNUSED.search(name))


def named(names: list[str]) -> str:
    """Return the first few of `names` and the number of those left out, for a message."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"tensor {', '.join(names[:_NAMED])}{more}"


def check_encoder(encoder: Encoder, config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModelError` if the shapes of a layer or classifier contradict `config`.

    Reads every layer once, which detects missing tensors.
    """
    hidden = int(config["hidden_size"])
    inner = int(config.get("intermediate_size") or config["hidden_dim"])
    for index, layer in enumerate(encoder.layers):
        for name, found, expected in _shapes(layer, hidden, inner):
            _check_shape(f"layer {index}: {name}", found, expected)
    if isinstance(encoder.head, Classifier):
        labels = int(config["num_labels"])
        _check_shape("classifier", encoder.head.output.weight, (labels, hidden))


def _shapes(
    layer: Layer, hidden: int, inner: int
) -> Iterator[tuple[str, Float32, tuple[int, ...]]]:
    linears = {
        "query, key and value": (layer.query_key_value, 3 * hidden, hidden),
        "attention output": (layer.attention_output, hidden, hidden),
        "feed-forward up": (layer.up, inner, hidden),
        "feed-forward down": (layer.down, hidden, inner),
    }
    for name, (linear, outputs, inputs) in linears.items():
        yield f"{name} weight", linear.weight, (outputs, inputs)
        yield f"{name} bias", linear.bias, (outputs,)
    for name, norm in (("attention", layer.attention_norm), ("output", layer.output_norm)):
        yield f"{name} norm", norm.scale, (hidden,)
        yield f"{name} norm bias", norm.bias, (hidden,)


def _tables(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the expected shapes of the tables, whose names are the same in every family."""
    width = int(config.get("embedding_size") or config["hidden_size"])
    rows = {"word": "vocab_size", "position": "max_position_embeddings"}
    rows |= {"token_type": "type_vocab_size"} if "type_vocab_size" in config else {}
    tables: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (int(config[key]), width)
        for name, key in rows.items()
    }
    if buckets := config.get("relative_attention_num_buckets"):
        heads = int(config["num_attention_heads"])
        tables["encoder.relative_attention_bias.weight"] = (int(buckets), heads)
    return tables


def _check_shape(name: str, found: Float32, expected: tuple[int, ...]) -> None:
    if found.shape != expected:
        raise UnsupportedModelError(
            f"{name} has shape {list(found.shape)}, but config.json says {list(expected)}"
        )
