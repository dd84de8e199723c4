"""A checkpoint's tensors under the names that its family has for them: all there, all used.

transformers lets a model load whose tensors are missing, and initialises those at random; and
it leaves out what it does not know. Both are found here, as are values that are no numbers and
shapes that the config does not have.
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
# What checkpoints hold beside what a pipeline computes: a buffer of older versions, the pooler
# behind the first token, and heads that the model was trained with.
_KNOWN_TO_BE_UNUSED = re.compile(
    r"(^|\.)position_ids$"
    r"|^(pooler|classifier|pre_classifier|cls|lm_head|qa_outputs)\."
    r"|^(vocab_transform|vocab_layer_norm|vocab_projector)\."
    r"|^(discriminator_predictions|generator_predictions|generator_lm_head)\."
)
_NAMED = 3  # of many tensors, so many are told


class Tensors:
    """The tensors of `weights`, whose names may have `prefix` in front, checked against `config`.

    `where` is the folder that they are in, for messages.
    Raises `UnsupportedModelError` where two names stand for one tensor.
    """

    def __init__(self, where: Path, weights: Store, prefix: str, config: Mapping[str, Any]) -> None:
        self._where = where
        self._weights = weights
        self._stored: dict[str, str] = {}
        for stored in sorted(weights.names()):
            name = canonical(stored, prefix)
            if name in self._stored:
                raise UnsupportedModelError(f"tensor {name!r} is there twice, as {stored!r} too")
            self._stored[name] = stored
        self._tables = _tables(config)
        self._read: set[str] = set()

    def tensor(self, name: str) -> Float32:
        """Return the tensor `name`, float32.

        Raises `UnsupportedModelError` where it is missing or of another shape than the config
        says, `ModelError` where it holds NaN or infinity.
        """
        if name not in self._stored:
            raise UnsupportedModelError(f"tensor {name!r} is missing")
        found = self._weights.tensor(self._stored[name])
        if name not in self._read:  # layers are read over and over
            _check_shape(name, found, self._tables.get(name, found.shape))
            self._check_finite(name, found)
            self._read.add(name)
        return found

    def _check_finite(self, name: str, found: Float32) -> None:
        if not np.isfinite(found.sum(dtype=np.float64)):  # a sum needs no memory
            stored = self._stored[name]
            raise ModelError(f"{self._where}: tensor {stored!r} holds NaN or infinity")

    def refuse_unused(self) -> None:
        """Raise `UnsupportedModelError` for tensors that were not read and should have been."""
        left = sorted(
            self._stored[name]
            for name in self._stored.keys() - self._read
            if not _KNOWN_TO_BE_UNUSED.search(name)
        )
        if left:
            raise UnsupportedModelError(f"nothing here uses {named(left)}")


def canonical(stored: str, prefix: str) -> str:
    """Return what a class calls the tensor that a checkpoint has as `stored`."""
    name = stored.removeprefix(prefix)
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def is_known_to_be_unused(name: str) -> bool:
    """Whether a pipeline computes the same without the tensor of this canonical `name`."""
    return bool(_KNOWN_TO_BE_UNUSED.search(name))


def named(names: list[str]) -> str:
    """Return the first few of `names`, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"tensor {', '.join(names[:_NAMED])}{more}"


def check_encoder(encoder: Encoder, config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModelError` where a layer's shapes are not those of `config`.

    Every layer is read once: what is missing is missed here.
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
    """Return the shapes of the tables, by the names that they have in every family."""
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
            f"{name} has shape {list(found.shape)}, and config.json says {list(expected)}"
        )
