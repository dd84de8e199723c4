"""What a model's Linear layers are fed, observed on texts while FP32 runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder import layerwise
from sidecar.encoder.architecture import Encoder, Float32, Linear
from sidecar.encoder.layerwise import Ids, LinearInput
from sidecar.encoder.recipes import Float32Recipe

# Rows of input kept of each text for judging candidates: enough for a mean error, few enough
# to keep all texts' in memory.
_ROWS_A_TEXT = 12
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


def observe(encoder: Encoder, texts: Sequence[Ids]) -> Iterator[tuple[str, Observed]]:
    """Yield every Linear layer of `encoder` with its inputs, by its name in the graph."""
    recipe = Float32Recipe()
    hidden = layerwise.run_embeddings(encoder, recipe, texts)
    for index in range(len(encoder.layers)):
        layer: dict[str, Observed] = {}
        behind: list[Float32] = []
        for passed in layerwise.run_layer_in_chunks(encoder, index, recipe, hidden):
            for name, fed in passed.fed.items():
                part = observed(fed)
                layer[name] = _together(layer[name], part) if name in layer else part
            behind += passed.texts
        yield from layer.items()
        hidden = behind


def observed(fed: LinearInput) -> Observed:
    """Return the layer with what it was fed."""
    rows = np.concatenate(fed.rows)
    even = rows * evening(rows)
    sample = np.concatenate([text[_picks(len(text))] for text in fed.rows])
    peak = np.abs(rows).max(axis=0)
    return Observed(fed.linear, fed.after_gelu, peak, even.T @ even, sample)


def _together(one: Observed, other: Observed) -> Observed:
    """Return what was observed on the texts of both."""
    return Observed(
        one.linear,
        one.after_gelu,
        np.maximum(one.peak, other.peak),
        one.gram + other.gram,
        np.concatenate([one.sample, other.sample]),
    )


def evening(rows: Float32) -> Float32:
    """Return what brings every row to unit mean square, float32 [rows, 1]."""
    factor: Float32 = 1 / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + _TINY)
    return factor


def _picks(count: int) -> NDArray[np.int64]:
    # The first and the last are the special tokens, whose outliers matter most.
    return np.unique(np.linspace(0, count - 1, _ROWS_A_TEXT).astype(np.int64))
