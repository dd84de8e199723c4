"""A reference encoder in numpy and FP64, written directly from the papers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import (
    Activation,
    Classifier,
    Dense,
    Embeddings,
    Encoder,
    Head,
    Layer,
    Layers,
    Linear,
    Norm,
    Pooling,
)

Float64 = NDArray[np.float64]
Table = Callable[[str, NDArray[np.float32]], Float64]
Multiply = Callable[[str, Linear, Float64], Float64]

EPSILONS = (0.05, 0.3, 2e-2, 0.1, 0.7)

ACTIVATIONS: dict[Activation, Callable[[float], float]] = {
    Activation.IDENTITY: lambda x: x,
    Activation.ELU: lambda x: x if x > 0 else math.expm1(x),
    Activation.GELU: lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    Activation.GELU_TANH: lambda x: (
        x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    Activation.LEAKY_RELU: lambda x: x if x > 0 else 0.01 * x,
    Activation.MISH: lambda x: x * math.tanh(math.log1p(math.exp(x))),
    Activation.QUICK_GELU: lambda x: x / (1 + math.exp(-1.702 * x)),
    Activation.RELU: lambda x: max(x, 0.0),
    Activation.SELU: lambda x: (
        1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))
    ),
    Activation.SIGMOID: lambda x: 1 / (1 + math.exp(-x)),
    Activation.SILU: lambda x: x / (1 + math.exp(-x)),
    Activation.SOFTPLUS: lambda x: math.log1p(math.exp(x)),
    Activation.SOFTSIGN: lambda x: x / (1 + abs(x)),
    Activation.TANH: math.tanh,
}


def activated(activation: Activation, x: Float64) -> Float64:
    return np.vectorize(ACTIVATIONS[activation], otypes=[np.float64])(x)


def normalised(norm: Norm, x: Float64) -> Float64:
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centered).mean(axis=-1, keepdims=True)
    return centered / np.sqrt(variance + norm.epsilon) * norm.scale + norm.bias


def product(_: str, linear: Linear, x: Float64) -> Float64:
    return x @ linear.weight.T.astype(np.float64) + linear.bias


def table_as_it_is(_: str, table: NDArray[np.float32]) -> Float64:
    return table.astype(np.float64)


@dataclass
class ByHand:
    """Runs an encoder on one text; `multiply` and `table` stand in for a recipe.

    `fed` records the input of each Linear layer by name.
    """

    encoder: Encoder
    multiply: Multiply = product
    table: Table = table_as_it_is
    gelu: Activation = Activation.GELU
    fed: dict[str, Float64] = field(default_factory=dict)

    def embedded(self, ids: Sequence[int], types: Sequence[int]) -> Float64:
        tables = self.encoder.embeddings
        x = self.table("word", tables.word)[list(ids)]
        if tables.position is not None:
            x = x + self.table("position", tables.position)[positions(tables.padding_id, ids)]
        if tables.token_type is not None:
            x = x + tables.token_type[list(types)]
        x = x if tables.norm is None else normalised(tables.norm, x)
        return x if tables.projection is None else product("", tables.projection, x)

    def layer(self, index: int, x: Float64) -> Float64:
        layer, at = self.encoder.layers[index], f"layer.{index}"
        mixed = self.attention(self._times(f"{at}.qkv", layer.query_key_value, x))
        y = self._times(f"{at}.attention_output", layer.attention_output, mixed)
        x = normalised(layer.attention_norm, x + y)
        y = self.activated(self._times(f"{at}.up", layer.up, x))
        return normalised(layer.output_norm, x + self._times(f"{at}.down", layer.down, y))

    def activated(self, x: Float64) -> Float64:
        kind = self.encoder.activation
        return activated(self.gelu if kind is Activation.GELU else kind, x)

    def attention(self, stacked: Float64) -> Float64:
        """Compute each head separately: softmax(q k / sqrt(size) + distance bias) v."""
        query, key, value = np.split(stacked, 3, axis=-1)
        size, bias = query.shape[1] // self.encoder.heads, self.encoder.distance_bias
        mixed = np.empty_like(query)
        for head in range(self.encoder.heads):
            own = slice(head * size, (head + 1) * size)
            scores = query[:, own] @ key[:, own].T / math.sqrt(size)
            for i, j in np.ndindex(scores.shape):
                scores[i, j] += 0 if bias is None else bias[head, bias.shape[1] // 2 + j - i]
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, own] = weights / weights.sum(axis=1, keepdims=True) @ value[:, own]
        return mixed

    def hidden(self, ids: Sequence[int], types: Sequence[int]) -> Float64:
        x = self.embedded(ids, types)
        for index in range(len(self.encoder.layers)):
            x = self.layer(index, x)
        return x

    def vector(self, ids: Sequence[int], types: Sequence[int]) -> Float64:
        return headed(self.encoder.head, self.hidden(ids, types))

    def _times(self, name: str, linear: Linear, x: Float64) -> Float64:
        self.fed[name] = x
        return self.multiply(name, linear, x)


def positions(padding_id: int | None, ids: Sequence[int]) -> list[int]:
    if padding_id is None:
        return list(range(len(ids)))
    rows, seen = [], 0
    for each in ids:
        seen += each != padding_id
        rows.append(padding_id if each == padding_id else padding_id + seen)
    return rows


def pooled(pooling: Pooling, x: Float64) -> Float64:
    count = len(x)
    ranks = np.arange(1, count + 1)[:, np.newaxis]
    return {
        Pooling.CLS: lambda: x[0],
        Pooling.MAX: lambda: x.max(axis=0),
        Pooling.MEAN: lambda: x.sum(axis=0) / count,
        Pooling.MEAN_SQRT_LEN: lambda: x.sum(axis=0) / math.sqrt(count),
        Pooling.WEIGHTED_MEAN: lambda: (x * ranks).sum(axis=0) / (count * (count + 1) / 2),
        Pooling.LAST_TOKEN: lambda: x[count - 1],
        Pooling.BAG: lambda: x.sum(axis=0) / max(count, 1),
    }[pooling]()


def headed(head: Head | Classifier, x: Float64) -> Float64:
    if isinstance(head, Classifier):
        hidden = activated(head.activation, product("", head.dense, x[0]))
        return product("", head.output, hidden)
    vector = np.concatenate([pooled(pooling, x) for pooling in head.pooling])
    for step in head.steps:
        if isinstance(step, Norm):
            vector = normalised(step, vector)
        elif isinstance(step, Dense):
            y = activated(step.activation, product("", step.linear, vector))
            through = np.eye(len(vector)) if step.residual is None else step.residual
            vector = y + through @ vector if step.use_residual else y
        else:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return vector


class Random:
    """Random model parts, determined only by the seed and the order of the calls."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def array(self, *shape: int, size: float = 1.0) -> NDArray[np.float32]:
        return (size * self.rng.standard_normal(shape)).astype(np.float32)

    def linear(self, inputs: int, outputs: int) -> Linear:
        return Linear(self.array(outputs, inputs, size=inputs**-0.5), self.array(outputs))

    def norm(self, width: int, epsilon: float) -> Norm:
        return Norm(1 + self.array(width, size=0.3), self.array(width, size=0.3), epsilon)

    def layer(self, width: int, between: int, epsilons: tuple[float, float]) -> Layer:
        return Layer(
            query_key_value=self.linear(width, 3 * width),
            attention_output=self.linear(width, width),
            attention_norm=self.norm(width, epsilons[0]),
            up=self.linear(width, between),
            down=self.linear(between, width),
            output_norm=self.norm(width, epsilons[1]),
        )


def small_encoder(
    head: Head | Classifier | None = None,
    *,
    width: int = 16,
    words: int = 60,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    **parts: object,
) -> Encoder:
    """Return a random encoder with one layer per pair of epsilons after that of the embeddings."""
    draw = Random(seed)
    embeddings = Embeddings(
        word=draw.array(words, width),
        position=draw.array(40, width),
        token_type=draw.array(2, width),
        norm=draw.norm(width, epsilons[0]),
    )
    layers = [draw.layer(width, 2 * width, pair) for pair in list(pairwise(epsilons[1:]))[::2]]
    whole = {
        "embeddings": embeddings,
        "layers": Layers(len(layers), layers.__getitem__),
        "heads": 4,
        "head": head or Head((Pooling.MEAN,)),
    }
    return Encoder(**{**whole, **parts})  # type: ignore[arg-type]


def rounded_by_hand(
    weight: NDArray[np.floating],
    gram: NDArray[np.floating],
    rounded: Callable[[int, Float64], Float64],
) -> Float64:
    """Return `weight`, [out, in], rounded column by column with `rounded`, as in the GPTQ paper.

    Equations 2 and 3 there: after each column, the remaining ones are updated to minimise the
    error given those already fixed, and the column is eliminated from the inverse of the damped
    second moments.
    """
    moments = gram.astype(np.float64)
    inverse = np.linalg.inv(moments + np.eye(len(gram)) * (0.01 * np.diag(moments).mean() + 1e-30))
    rest, grid = weight.astype(np.float64), np.empty(weight.shape)
    for j in range(len(gram)):
        grid[:, j] = rounded(j, rest[:, j:].T)
        error = (rest[:, j] - grid[:, j]) / inverse[j, j]
        rest[:, j:] -= np.outer(error, inverse[j, j:])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return grid
