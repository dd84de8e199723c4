"""A model's first rows: they pay for what only first rows pay, and tell what the others cost."""

import time
from collections.abc import Callable

from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.cost_model import CostModel, Sample

# From a short query to a paragraph; the line through them serves beyond.
_WORDS = (2, 16, 64, 192)


def calibrate_cost(model: ServedModel, clock: Callable[[], float] = time.perf_counter) -> CostModel:
    """Compute a few rows of several lengths, on this thread, and return what rows cost.

    Raises whatever the model raises.
    """
    return CostModel([_measure(model, words, clock) for words in _WORDS])


def _measure(model: ServedModel, words: int, clock: Callable[[], float]) -> Sample:
    text = " ".join(["word"] * words)
    (row,) = model.tokenize([(text, text) if model.task == "rerank" else text])
    model.forward(row)  # the first of a length allocates; the next ones do not
    started = clock()
    model.forward(row)
    return row.tokens, clock() - started
