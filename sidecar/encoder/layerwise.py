"""Texts on their way through a model, one layer at a time.

A layer is a small model of its own: however large the whole is, no more than one of its layers
is held beside the weights, and what feeds every part of it can be looked at.
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
"""A text's ids and token types, int64 [1, tokens]."""
_TEXTS_AT_ONCE = 16


class LinearInput(NamedTuple):
    """A Linear layer, and every text's rows at its input, float32 [tokens, in] each."""

    linear: Linear
    after_gelu: bool
    rows: Sequence[Float32]


@dataclass(frozen=True, slots=True)
class LayerOutput:
    """A layer's Linear layers by name, in order, and each text behind the layer."""

    fed: dict[str, LinearInput]
    texts: Sequence[Float32]


def run_embeddings(encoder: Encoder, recipe: Recipe, texts: Sequence[Ids]) -> Sequence[Float32]:
    """Return every text in front of the first layer, float32 [tokens, hidden]."""
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
    """Return what `texts`, float32 [tokens, hidden], become in layer `index`.

    What is `fed` to its Linear layers is kept for those of these names, or for all.
    """
    with ThreadPoolExecutor(read_host().cores) as pool:
        return _LayerRunner(encoder, index, recipe, fed).of(texts, pool)


def run_layer_in_chunks(
    encoder: Encoder, index: int, recipe: Recipe, texts: Sequence[Float32]
) -> Iterator[LayerOutput]:
    """Yield the same for some texts after others, so that not all inputs are held at once."""
    runner = _LayerRunner(encoder, index, recipe)
    with ThreadPoolExecutor(read_host().cores) as pool:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            yield runner.of(texts[start : start + _TEXTS_AT_ONCE], pool)


class _LayerRunner:
    """One layer, ready to run, with a tap at the input of the Linear layers in it."""

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
        """Return what `texts` become."""
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
    """A recipe as it is, and a note of which value feeds which Linear layer."""

    def __init__(self, recipe: Recipe) -> None:
        self.taps: dict[str, _Tap] = {}
        self._recipe = recipe

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Look up as the recipe does."""
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
        """Multiply as the recipe does."""
        self.taps[name] = _Tap(linear, x, after_gelu)
        return self._recipe.matmul(graph, name, linear, x, after_gelu=after_gelu, parts=parts)

    def activate(self, graph: GraphWriter, activation: Activation, x: str, bias: str) -> str:
        """Compute it as the recipe does."""
        return self._recipe.activate(graph, activation, x, bias)
