"""What a model's Linear layers are fed, observed on texts while FP32 runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from sidecar.encoder.architecture import Encoder, Float32, Linear
from sidecar.encoder.graph import build
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Float32Recipe, Product, Recipe
from sidecar.encoder.runtime import Session

# Rows of input kept of each text for judging candidates: enough for a mean error, few enough
# to keep all layers' in memory.
_ROWS_A_TEXT = 12
# Rows that are multiplied at once: adding up a wide matrix for every short text costs more.
_ROWS_A_PRODUCT = 512
_TINY = 1e-12  # a row of zeros stays one


@dataclass(frozen=True, slots=True)
class Observed:
    """A Linear layer and its inputs over all calibration texts.

    `peak` float32 [in] is the largest magnitude of each channel, `gram` float32 [in, in] is
    X.T @ X with every row of X brought to unit mean square, so that the few tokens with huge
    activations do not decide alone, and `sample` float32 [rows, in] are some of the rows as
    they came. `after_gelu`: no input is below -0.17.
    """

    linear: Linear
    after_gelu: bool
    peak: Float32
    gram: Float32
    sample: Float32


def observe(
    encoder: Encoder,
    texts: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]],
    step: Callable[[], None],
) -> dict[str, Observed]:
    """Return every Linear layer of `encoder` with its inputs, by its name in the graph.

    `texts` yields ids and token types, int64 [1, tokens]; `step` is called after each.
    """
    recipe = Tapping(Float32Recipe())
    model = tapped(build(encoder, recipe), recipe)
    session = Session(model.SerializeToString())
    gatherings = {
        name: Gathering(tap.linear, after_gelu=tap.after_gelu) for name, tap in recipe.taps.items()
    }
    taps = [tap.value for tap in recipe.taps.values()]
    for ids, token_types in texts:
        values = session.run_for(taps, {"ids": ids, "token_types": token_types})
        for gathering, rows in zip(gatherings.values(), values, strict=True):
            gathering.add(rows[0])
        step()
    return {name: gathering.observed() for name, gathering in gatherings.items()}


class Tap(NamedTuple):
    """A Linear layer, and the value in the graph that feeds it."""

    linear: Linear
    value: str
    after_gelu: bool


class Tapping:
    """A recipe as it is, and a note of which value feeds which Linear layer."""

    def __init__(self, recipe: Recipe) -> None:
        self.taps: dict[str, Tap] = {}
        self._recipe = recipe

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Look up as the recipe does."""
        return self._recipe.lookup(graph, name, table, ids)

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> Product:
        """Multiply as the recipe does."""
        self.taps[name] = Tap(linear, x, after_gelu)
        return self._recipe.matmul(graph, name, linear, x, after_gelu=after_gelu)


def tapped(model: ModelProto, recipe: Tapping) -> ModelProto:
    """Return `model`, built with `recipe`, with every tap as an output."""
    for tap in recipe.taps.values():
        model.graph.output.append(helper.make_tensor_value_info(tap.value, TensorProto.FLOAT, None))
    return model


class Gathering:
    """Gathers what feeds a Linear layer, text by text."""

    def __init__(self, linear: Linear, *, after_gelu: bool) -> None:
        width = linear.weight.shape[1]
        self._linear = linear
        self._after_gelu = after_gelu
        self._peak = np.zeros(width, np.float32)
        self._gram = np.zeros((width, width), np.float32)
        self._pending: list[Float32] = []
        self._sample: list[Float32] = []

    def add(self, rows: Float32) -> None:
        """Take note of one text's rows, float32 [tokens, in]."""
        np.maximum(self._peak, np.abs(rows).max(axis=0), out=self._peak)
        self._pending.append(rows * evening(rows))
        if sum(map(len, self._pending)) >= _ROWS_A_PRODUCT:
            self._flush()
        # The first and the last are the special tokens, whose outliers matter most.
        picks = np.unique(np.linspace(0, len(rows) - 1, _ROWS_A_TEXT).astype(np.int64))
        self._sample.append(rows[picks])

    def _flush(self) -> None:
        rows = np.concatenate(self._pending)
        self._gram += rows.T @ rows
        self._pending.clear()

    def observed(self) -> Observed:
        """Return the layer with all that was added."""
        if self._pending:
            self._flush()
        sample = np.concatenate(self._sample)
        return Observed(self._linear, self._after_gelu, self._peak, self._gram, sample)


def evening(rows: Float32) -> Float32:
    """Return what brings every row to unit mean square, float32 [rows, 1]."""
    factor: Float32 = 1 / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + _TINY)
    return factor
