"""Jobs without texts: what the pure queue needs of one."""

import numpy as np

from sidecar.models.rows import Row
from sidecar.serving.job import Job
from sidecar.serving.vectors import Finish

_FINISH = Finish(8, normalize=True)


def job(*costs, model="a", arrived=0.0, **fields):
    """A job with a row of three tokens for each cost (microseconds of one thread)."""
    ids = np.zeros(3, np.int64)
    rows = (Row(ids, ids, truncated=False),) * len(costs)
    return Job(model=model, rows=rows, costs=costs, finish=_FINISH, arrived=arrived, **fields)
