"""Jobs without texts: what the pure queue needs of one."""

from itertools import count

import numpy as np

from sidecar.models.rows import Row
from sidecar.serving.postprocess import Postprocess
from sidecar.serving.scheduler.job import Job

_FINISH = Postprocess(8, normalize=True)
_new = count(1_000)


def job(*costs, model="a", arrived=0.0, texts=None, tokens=None, row_bytes=16, **fields):
    """A job with a row for each cost (microseconds of one thread), of three tokens or of `tokens`.

    A row of three holds 64 bytes. No two rows are equal but those of equal `texts`, small numbers.
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
