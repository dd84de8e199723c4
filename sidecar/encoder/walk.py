"""Texts on their way through a model, one layer at a time.

A layer is a small model of its own: however large the whole is, no more than one of its layers
is held beside the weights, and what feeds every part of it can be looked at.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sidecar.encoder.architecture import Encoder, Float32, Linear
from sidecar.encoder.graph import build_embeddings, build_layer
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Product, Recipe
from sidecar.encoder.runtime import Session
from sidecar.host import read_host

Ids: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""A text's ids and token types, int64 [1, tokens]."""


class Fed(NamedTuple):
    """A Linear layer, and every text's rows at its input, float32 [tokens, in] each."""

    linear: Linear
    after_gelu: bool
    rows: Sequence[Float32]


@dataclass(frozen=True, slots=True)
class Passed:
    """A layer's Linear layers by name, in order, and each text behind the layer."""

    fed: dict[str, Fed]
    texts: Sequence[Float32]


def embed(encoder: Encoder, recipe: Recipe, texts: Sequence[Ids]) -> Sequence[Float32]:
    """Return every text in front of the first layer, float32 [tokens, hidden]."""
    session = Session(build_embeddings(encoder, recipe).SerializeToString())
    return [
        session.run_for(["hidden"], {"ids": ids, "token_types": token_types})[0][0]
        for ids, token_types in texts
    ]


def through(encoder: Encoder, index: int, recipe: Recipe, texts: Sequence[Float32]) -> Passed:
    """Return what `texts`, float32 [tokens, hidden], become in layer `index`."""
    tapping = _Tapping(recipe)
    model = build_layer(encoder, index, tapping)
    for tap in tapping.taps.values():
        model.graph.output.append(helper.make_tensor_value_info(tap.value, TensorProto.FLOAT, None))
    session = Session(model.SerializeToString())
    values = ["hidden", *(tap.value for tap in tapping.taps.values())]
    with ThreadPoolExecutor(read_host().cores) as pool:
        passed = list(pool.map(lambda x: session.run_for(values, {"x": x[np.newaxis]}), texts))
    hidden, *inputs = ([value[0] for value in column] for column in zip(*passed, strict=True))
    fed = {
        name: Fed(tap.linear, tap.after_gelu, rows)
        for (name, tap), rows in zip(tapping.taps.items(), inputs, strict=True)
    }
    return Passed(fed, hidden)


class _Tap(NamedTuple):
    linear: Linear
    value: str
    after_gelu: bool


class _Tapping:
    """A recipe as it is, and a note of which value feeds which Linear layer."""

    def __init__(self, recipe: Recipe) -> None:
        self.taps: dict[str, _Tap] = {}
        self._recipe = recipe

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Look up as the recipe does."""
        return self._recipe.lookup(graph, name, table, ids)

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> Product:
        """Multiply as the recipe does."""
        self.taps[name] = _Tap(linear, x, after_gelu)
        return self._recipe.matmul(graph, name, linear, x, after_gelu=after_gelu)
