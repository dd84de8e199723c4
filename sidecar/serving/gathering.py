"""One request's rows, computed in any order and by several threads, put together again."""

import asyncio
from dataclasses import dataclass

import numpy as np

from client_lib.wire.errors import BackendFailed, ReplyError
from sidecar.serving.job import Job
from sidecar.serving.roster import Float32
from sidecar.serving.worker import Finished


@dataclass(frozen=True, slots=True)
class Computed:
    """All rows of a job: float32 [n, d] in the order of its rows; times in seconds."""

    vectors: Float32
    started: float
    ended: float
    batch_rows: int
    batch_tokens: int


class Gathering:
    """Collects a job's rows; `outcome` is done when the last has come, or the first failed."""

    def __init__(self, job: Job) -> None:
        self.outcome: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._vectors = np.empty((len(job.rows), job.finish.dimensions), np.float32)
        self._missing = len(job.rows)
        self._first: Finished | None = None
        self._largest: Finished | None = None

    def take(self, row: Finished) -> None:
        """Put one row in its place."""
        if isinstance(row.outcome, Exception):
            self.fail(_failure(row.entry.index, row.outcome))
            return
        self._vectors[row.entry.index] = row.outcome
        self._missing -= 1
        self._note(row)
        if not self._missing and not self.outcome.done():
            self.outcome.set_result(self._computed(row.ended))

    def fail(self, error: ReplyError) -> None:
        """Fail the request, unless it is settled already."""
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def _note(self, row: Finished) -> None:
        if self._first is None or row.started < self._first.started:
            self._first = row
        if self._largest is None or row.batch.rows > self._largest.batch.rows:
            self._largest = row

    def _computed(self, ended: float) -> Computed:
        assert self._first is not None
        assert self._largest is not None
        batch = self._largest.batch
        return Computed(self._vectors, self._first.started, ended, batch.rows, batch.tokens)


def _failure(index: int, error: Exception) -> BackendFailed:
    failure = BackendFailed(f"the model raised {type(error).__name__}", index=index)
    failure.__cause__ = error
    return failure
