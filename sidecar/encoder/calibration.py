"""What a model's Linear layers are fed, observed on texts while FP32 runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sidecar.encoder.architecture import Encoder, Float32, Linear
from sidecar.encoder.graph import build
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Float32Recipe, Product
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
    recipe = _Tapping()
    model = build(encoder, recipe)
    taps = [gathering.tap for gathering in recipe.layers.values()]
    for tap in taps:
        model.graph.output.append(helper.make_tensor_value_info(tap, TensorProto.FLOAT, None))
    session = Session(model.SerializeToString())
    for ids, token_types in texts:
        values = session.run_for(taps, ids, token_types)
        for gathering, rows in zip(recipe.layers.values(), values, strict=True):
            gathering.add(rows[0])
        step()
    return {name: gathering.observed() for name, gathering in recipe.layers.items()}


class _Tapping(Float32Recipe):
    """FP32, and a note of which value feeds which Linear layer."""

    def __init__(self) -> None:
        self.layers: dict[str, _Gathering] = {}

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> Product:
        self.layers[name] = _Gathering(linear, x, after_gelu)
        return super().matmul(graph, name, linear, x, after_gelu=after_gelu)


class _Gathering:
    def __init__(self, linear: Linear, tap: str, after_gelu: bool) -> None:
        width = linear.weight.shape[1]
        self.tap = tap
        self._linear = linear
        self._after_gelu = after_gelu
        self._peak = np.zeros(width, np.float32)
        self._gram = np.zeros((width, width), np.float32)
        self._pending: list[Float32] = []
        self._sample: list[Float32] = []

    def add(self, rows: Float32) -> None:
        """Take note of one text's rows, float32 [tokens, in]."""
        np.maximum(self._peak, np.abs(rows).max(axis=0), out=self._peak)
        self._pending.append(rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + _TINY))
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
        if self._pending:
            self._flush()
        sample = np.concatenate(self._sample)
        return Observed(self._linear, self._after_gelu, self._peak, self._gram, sample)
