"""Jobs without texts, sufficient for the queue."""

from itertools import count

import numpy as np

from sidecar.models.rows import Row
from sidecar.serving.postprocess import Postprocess
from sidecar.serving.scheduler.job import Job

_FINISH = Postprocess(8, normalize=True)
_new = count(1_000)


def job(*costs, model="a", arrived=0.0, texts=None, tokens=None, row_bytes=16, **fields):
    """Make a job with one row per cost (microseconds on one thread).

    Rows have three tokens, and take 64 bytes, unless `tokens` says otherwise. Two rows are equal
    only if their numbers in `texts` are; use small numbers.
    """
    texts = [next(_new) for _ in costs] if texts is None else texts
    lengths = [3] * len(costs) if tokens is None else tokens
    rows = tuple(_row(*each) for each in zip(texts, lengths, strict=True))
    return Job(
        model=model,
        rows=rows,
        costs=costs,
        finish=_FINISH,
        arrived=arrived,
        row_bytes=row_bytes,
        **fields,
    )


def _row(text, tokens):
    ids = np.full(tokens, text, np.int64)
    return Row(ids, ids, truncated=False)
