"""What a transformer encoder is, whatever its family calls its parts.

A family (`bert`) maps a checkpoint's names onto these; `graph` builds from nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]


class UnsupportedModelError(ValueError):
    """A model that no family here can express; the message says which part."""


class Pooling(StrEnum):
    """How the vectors of a text's tokens become the text's vector."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True, slots=True)
class Linear:
    """`y = x @ weight.T + bias`; weight float32 [out, in], bias float32 [out]."""

    weight: Float32
    bias: Float32


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation over the last axis; scale and bias float32 [hidden]."""

    scale: Float32
    bias: Float32
    epsilon: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One post-normalised encoder layer.

    `query_key_value` holds the three projections stacked, weight [3 * hidden, hidden]: they
    read the same input, so they are one multiplication.
    """

    query_key_value: Linear
    attention_output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


class Layers:
    """A model's layers, each read when it is asked for: none but those in `changed` is held."""

    def __init__(
        self, count: int, read: Callable[[int], Layer], changed: Mapping[int, Layer] | None = None
    ) -> None:
        self._count = count
        self._read = read
        self._changed = changed or {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Layer:
        return self._changed[index] if index in self._changed else self._read(index)

    def __iter__(self) -> Iterator[Layer]:
        return (self[index] for index in range(self._count))

    def changed(self, index: int, layer: Layer) -> "Layers":
        """Return the layers with another one at `index`."""
        return Layers(self._count, self._read, {**self._changed, index: layer})


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The lookup tables, float32 [rows, hidden], and the normalisation of their sum.

    Row i of `position` is for a text's i-th token; `token_type` None for a family without.
    """

    word: Float32
    position: Float32
    token_type: Float32 | None
    norm: Norm


@dataclass(frozen=True, slots=True)
class Classifier:
    """A cross-encoder's head on the first token: `output(activation(dense(h[0])))`."""

    dense: Linear
    output: Linear
    activation: Literal["Tanh", "Relu"]


@dataclass(frozen=True, slots=True)
class Encoder:
    """A whole model: `head` pools token vectors to one, or classifies the first.

    `distance_bias`, float32 [heads, 2 * positions - 1], is added to the attention scores of
    every layer: column `positions - 1 + d` where the key stands d tokens after the query.
    """

    embeddings: Embeddings
    layers: Layers
    heads: int
    head: Pooling | Classifier
    distance_bias: Float32 | None = None

    @property
    def hidden(self) -> int:
        """Width of a token's vector."""
        return int(self.embeddings.word.shape[1])

    @property
    def outputs(self) -> int:
        """Numbers a text gets: the vector's dimensions, or the classifier's labels."""
        if isinstance(self.head, Classifier):
            return int(self.head.output.weight.shape[0])
        return self.hidden
