"""A transformer encoder, independent of how its family names the parts.

A family (`bert`) maps a checkpoint's names onto these classes; `graph` uses nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]


class UnsupportedModelError(ValueError):
    """No family here can express the model; the message names the part."""


class Pooling(StrEnum):
    """How the token vectors of a text are combined into its vector.

    The names are sentence-transformers', except for `BAG`, the mean of torch's EmbeddingBag, which
    is zero for a text without tokens.
    """

    CLS = "cls"
    MAX = "max"
    MEAN = "mean"
    MEAN_SQRT_LEN = "mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "weightedmean"
    LAST_TOKEN = "lasttoken"  # noqa: S105 - a token of a text
    BAG = "bag"


class Activation(StrEnum):
    """An elementwise function; `GELU_TANH` is the tanh approximation of GELU."""

    IDENTITY = "identity"
    ELU = "elu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    LEAKY_RELU = "leaky_relu"
    MISH = "mish"
    QUICK_GELU = "quick_gelu"
    RELU = "relu"
    SELU = "selu"
    SIGMOID = "sigmoid"
    SILU = "silu"
    SOFTPLUS = "softplus"
    SOFTSIGN = "softsign"
    TANH = "tanh"


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

    `query_key_value` stacks the three projections, weight [3 * hidden, hidden]: they read the same
    input, so a single multiplication computes them.
    """

    query_key_value: Linear
    attention_output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


class Layers:
    """A model's layers, read on every access; only those in `changed` are kept in memory."""

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
        """Return the layers with the one at `index` replaced."""
        return Layers(self._count, self._read, {**self._changed, index: layer})


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The lookup tables, float32 [rows, width], and the normalisation of their sum.

    The i-th token of a text uses row i of `position`. With `padding_id` p, the i-th token other
    than p, counted from 1, uses row p + i, and tokens equal to p use row p. `projection` maps the
    sum to the layers' width. Parts that a family lacks are None.
    """

    word: Float32
    position: Float32 | None = None
    token_type: Float32 | None = None
    norm: Norm | None = None
    padding_id: int | None = None
    projection: Linear | None = None


@dataclass(frozen=True, slots=True)
class Classifier:
    """A cross-encoder's head on the first token: `output(activation(dense(h[0])))`."""

    dense: Linear
    output: Linear
    activation: Activation


@dataclass(frozen=True, slots=True)
class Dense:
    """`activation(linear(x))`; `use_residual` adds x, or `residual @ x` if `residual` is given.

    `residual` is float32 [out, in].
    """

    linear: Linear
    activation: Activation
    use_residual: bool = False
    residual: Float32 | None = None


@dataclass(frozen=True, slots=True)
class UnitLength:
    """`x / max(|x|, 1e-12)`."""


Step: TypeAlias = Dense | Norm | UnitLength


@dataclass(frozen=True, slots=True)
class Head:
    """An embedder's head: the poolings' vectors concatenated, then the steps in order."""

    pooling: tuple[Pooling, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Encoder:
    """A whole model; without layers, a table of token vectors and a head.

    `activation` comes between a layer's `up` and `down`. `distance_bias`, float32
    [heads, 2 * positions - 1], is added to the attention scores of every layer: column
    `positions - 1 + d` for a key d tokens after the query.

    Raises `ValueError` if the width of a step of the head does not match its input.
    """

    embeddings: Embeddings
    layers: Layers
    heads: int
    head: Head | Classifier
    activation: Activation = Activation.GELU
    distance_bias: Float32 | None = None

    def __post_init__(self) -> None:
        if isinstance(self.head, Head):
            _width_after(self.head, self.hidden)

    @property
    def hidden(self) -> int:
        """The width of a token vector after the embeddings."""
        projection = self.embeddings.projection
        return int(len(projection.bias) if projection else self.embeddings.word.shape[1])

    @property
    def outputs(self) -> int:
        """The number of outputs per text: vector dimensions or classifier labels."""
        if isinstance(self.head, Classifier):
            return len(self.head.output.bias)
        return _width_after(self.head, self.hidden)


def _width_after(head: Head, hidden: int) -> int:
    """Return the width of the head's output; raise `ValueError` for a step that does not fit."""
    width = hidden * len(head.pooling)
    for step in head.steps:
        if isinstance(step, UnitLength):
            continue
        takes, gives = (
            (len(step.scale), len(step.scale))
            if isinstance(step, Norm)
            else reversed(step.linear.weight.shape)
        )
        if takes != width:
            raise ValueError(f"{type(step).__name__} takes {takes} dimensions, but gets {width}")
        width = gives
    return width
