"""Statistics of the inputs of a model's Linear layers, collected from texts in FP32."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder import layerwise
from sidecar.encoder.architecture import Encoder, Float32, Linear
from sidecar.encoder.layerwise import Ids, LinearInput
from sidecar.encoder.recipes import Float32Recipe

# Input rows to keep per text for judging candidates: enough for a mean error, few enough to keep
# those of all texts in memory.
_ROWS_A_TEXT = 12
_TINY = 1e-12  # keeps a row of zeros at zero


@dataclass(frozen=True, slots=True)
class Observed:
    """A Linear layer and statistics of its inputs over all calibration texts.

    `peak` float32 [in] is the largest magnitude of each channel. `gram` float32 [in, in] is
    X.T @ X with every row of X scaled to unit mean square, so that the few tokens with huge
    activations do not dominate. `sample` float32 [rows, in] is a sample of unscaled rows.
    `after_gelu`: no input is below -0.17.
    """

    linear: Linear
    after_gelu: bool
    peak: Float32
    gram: Float32
    sample: Float32


def observe(encoder: Encoder, texts: Sequence[Ids]) -> Iterator[tuple[str, Observed]]:
    """Yield the graph name and the statistics of every Linear layer of `encoder`."""
    recipe = Float32Recipe()
    hidden = layerwise.run_embeddings(encoder, recipe, texts)
    for index in range(len(encoder.layers)):
        layer: dict[str, Observed] = {}
        outputs: list[Float32] = []
        for passed in layerwise.run_layer_in_chunks(encoder, index, recipe, hidden):
            for name, fed in passed.fed.items():
                part = observed(fed)
                layer[name] = _merged(layer[name], part) if name in layer else part
            outputs += passed.texts
        yield from layer.items()
        hidden = outputs


def observed(fed: LinearInput) -> Observed:
    """Return the layer with the statistics of its inputs."""
    rows = np.concatenate(fed.rows)
    even = rows * evening(rows)
    sample = np.concatenate([text[_sampled(len(text))] for text in fed.rows])
    peak = np.abs(rows).max(axis=0)
    return Observed(fed.linear, fed.after_gelu, peak, even.T @ even, sample)


def _merged(one: Observed, other: Observed) -> Observed:
    """Return the statistics over the texts of both."""
    return Observed(
        one.linear,
        one.after_gelu,
        np.maximum(one.peak, other.peak),
        one.gram + other.gram,
        np.concatenate([one.sample, other.sample]),
    )


def evening(rows: Float32) -> Float32:
    """Return the factors that scale every row to unit mean square, float32 [rows, 1]."""
    factor: Float32 = 1 / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + _TINY)
    return factor


def _sampled(count: int) -> NDArray[np.int64]:
    # Includes the first and last tokens, which are special and whose outliers matter most.
    return np.unique(np.linspace(0, count - 1, _ROWS_A_TEXT).astype(np.int64))
