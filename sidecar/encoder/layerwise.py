"""Runs texts through a model one layer at a time.

Each layer is built as a small model of its own. However large the whole model, only one of its
layers is in memory beside the weights, and the inputs of all its parts can be inspected.
"""

from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sidecar.encoder.architecture import Activation, Encoder, Float32, Linear
from sidecar.encoder.graph import build_embeddings, build_layer
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Product, Recipe
from sidecar.encoder.runtime import Session
from sidecar.host import read_host

Ids: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The ids and token types of a text, both int64 [1, tokens]."""
_TEXTS_AT_ONCE = 16


class LinearInput(NamedTuple):
    """A Linear layer and its inputs: for each text, `rows` float32 [tokens, in]."""

    linear: Linear
    after_gelu: bool
    rows: Sequence[Float32]


@dataclass(frozen=True, slots=True)
class LayerOutput:
    """The inputs of a layer's Linear layers, by name in order, and its output for each text."""

    fed: dict[str, LinearInput]
    texts: Sequence[Float32]


def run_embeddings(encoder: Encoder, recipe: Recipe, texts: Sequence[Ids]) -> Sequence[Float32]:
    """Return the input of the first layer for each text, float32 [tokens, hidden]."""
    session = Session(build_embeddings(encoder, recipe).SerializeToString())
    return [
        session.run_for(["hidden"], {"ids": ids, "token_types": token_types})[0][0]
        for ids, token_types in texts
    ]


def run_layer(
    encoder: Encoder,
    index: int,
    recipe: Recipe,
    texts: Sequence[Float32],
    fed: Container[str] | None = None,
) -> LayerOutput:
    """Return the output of layer `index` for `texts`, float32 [tokens, hidden].

    The inputs of its Linear layers are included for the names in `fed`, by default for all.
    """
    with ThreadPoolExecutor(read_host().cores) as pool:
        return _LayerRunner(encoder, index, recipe, fed).of(texts, pool)


def run_layer_in_chunks(
    encoder: Encoder, index: int, recipe: Recipe, texts: Sequence[Float32]
) -> Iterator[LayerOutput]:
    """Yield the same for a few texts at a time, to avoid holding all inputs in memory."""
    runner = _LayerRunner(encoder, index, recipe)
    with ThreadPoolExecutor(read_host().cores) as pool:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            yield runner.of(texts[start : start + _TEXTS_AT_ONCE], pool)


class _LayerRunner:
    """A runnable layer that also outputs the inputs of its Linear layers."""

    def __init__(
        self, encoder: Encoder, index: int, recipe: Recipe, fed: Container[str] | None = None
    ) -> None:
        tap_recipe = _TapRecipe(recipe)
        model = build_layer(encoder, index, tap_recipe)
        self._taps = {
            name: tap for name, tap in tap_recipe.taps.items() if fed is None or name in fed
        }
        for tap in self._taps.values():
            value = helper.make_tensor_value_info(tap.value, TensorProto.FLOAT, None)
            model.graph.output.append(value)
        self._session = Session(model.SerializeToString())
        self._values = ["hidden", *(tap.value for tap in self._taps.values())]

    def of(self, texts: Sequence[Float32], pool: Executor) -> LayerOutput:
        """Return the layer's output for `texts`, run on `pool`."""
        columns = zip(*pool.map(self._run, texts), strict=True)
        hidden, *inputs = ([value[0] for value in column] for column in columns)
        fed = {
            name: LinearInput(tap.linear, tap.after_gelu, rows)
            for (name, tap), rows in zip(self._taps.items(), inputs, strict=True)
        }
        return LayerOutput(fed, hidden)

    def _run(self, text: Float32) -> list[Float32]:
        return self._session.run_for(self._values, {"x": text[np.newaxis]})


class _Tap(NamedTuple):
    linear: Linear
    value: str
    after_gelu: bool


class _TapRecipe:
    """Wraps a recipe and records which value feeds which Linear layer."""

    def __init__(self, recipe: Recipe) -> None:
        self.taps: dict[str, _Tap] = {}
        self._recipe = recipe

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Look up as the wrapped recipe does."""
        return self._recipe.lookup(graph, name, table, ids)

    def matmul(
        self,
        graph: GraphWriter,
        name: str,
        linear: Linear,
        x: str,
        *,
        after_gelu: bool = False,
        parts: int = 1,
    ) -> Product:
        """Record the input and multiply as the wrapped recipe does."""
        self.taps[name] = _Tap(linear, x, after_gelu)
        return self._recipe.matmul(graph, name, linear, x, after_gelu=after_gelu, parts=parts)

    def activate(self, graph: GraphWriter, activation: Activation, x: str, bias: str) -> str:
        """Add the activation as the wrapped recipe does."""
        return self._recipe.activate(graph, activation, x, bias)
