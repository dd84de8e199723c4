"""Jobs without texts: what the pure queue needs of one."""

from itertools import count

import numpy as np

from sidecar.models.rows import Row
from sidecar.serving.job import Job
from sidecar.serving.vectors import Finish

_FINISH = Finish(8, normalize=True)
_new = count(1_000)


def job(*costs, model="a", arrived=0.0, texts=None, **fields):
    """A job with a row of three tokens for each cost (microseconds of one thread).

    No two rows are equal but those of equal `texts`, small numbers.
    """
    texts = [next(_new) for _ in costs] if texts is None else texts
    rows = tuple(_row(text) for text in texts)
    return Job(model=model, rows=rows, costs=costs, finish=_FINISH, arrived=arrived, **fields)


def _row(text):
    ids = np.full(3, text, np.int64)
    return Row(ids, ids, truncated=False)
