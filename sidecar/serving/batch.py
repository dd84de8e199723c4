"""The queue and the cut rule. Pure: no threads, no loop, no clock; `now` is an argument.

Jobs wait in the order of their arrival. A batch is at most `MAX_ROWS` rows of one model: that
of the job at the head. Times are seconds on the caller's clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from client_lib.wire.errors import Overloaded, TooLarge
from sidecar.models.rows import Row
from sidecar.serving.roster import ServedModel
from sidecar.serving.vectors import Finish

MAX_ROWS = 16

# How far one finished row moves the mean: about the last 30 rows count.
_MEMORY = 1 / 30
_FIRST_GUESS_SECONDS = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """The rows of one request. Two jobs are never equal: each is itself."""

    model: ServedModel
    rows: tuple[Row, ...]
    finish: Finish
    arrived: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a job, by its index in it."""

    job: Job
    index: int

    @property
    def row(self) -> Row:
        """The row itself."""
        return self.job.rows[self.index]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one model that were cut together at `cut`, and their tokens."""

    id: int
    entries: tuple[Entry, ...]
    tokens: int
    cut: float

    @property
    def model(self) -> ServedModel:
        """The model of every row."""
        return self.entries[0].job.model

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.entries)

    @property
    def longest_wait(self) -> float:
        """How long its oldest row has waited to be cut, in seconds."""
        return self.cut - min(entry.job.arrived for entry in self.entries)


class Pace:
    """How fast rows are computed, from the time that the recent ones took."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._seconds_per_row = _FIRST_GUESS_SECONDS

    def record(self, seconds: float) -> None:
        """Take note that a row kept one of the lanes busy for `seconds`."""
        self._seconds_per_row += _MEMORY * (seconds - self._seconds_per_row)

    def seconds(self, rows: int) -> float:
        """Return how long all lanes together need for `rows`."""
        return rows * self._seconds_per_row / self._lanes


class Queue:
    """Rows that wait, at most `max_rows` of them; a job is accepted whole or refused whole."""

    def __init__(self, max_rows: int, pace: Pace) -> None:
        self.max_rows = max_rows
        self.pace = pace
        self.batches = 0
        # A job and the index of its first row that still waits.
        self._waiting: dict[Job, int] = {}
        self._rows = 0

    def __len__(self) -> int:
        """How many rows wait."""
        return self._rows

    def push(self, job: Job) -> None:
        """Add a job's rows at the end.

        Raises `TooLarge` for a job that could never be accepted, `Overloaded` for one that
        could be once rows have left.
        """
        rows = len(job.rows)
        if rows > self.max_rows:
            raise TooLarge(f"{rows} texts in one request; the queue holds {self.max_rows}")
        if (excess := self._rows + rows - self.max_rows) > 0:
            wait_ms = max(1, round(1000 * self.pace.seconds(excess)))
            message = f"{self._rows} of {self.max_rows} rows are waiting; retry in {wait_ms} ms"
            raise Overloaded(message, retry_after_ms=wait_ms)
        self._waiting[job] = 0
        self._rows += rows

    def cut(self, now: float) -> Batch | None:
        """Take the next batch out, or return None if nothing waits."""
        entries = tuple(islice(self._next_entries(), MAX_ROWS))
        if not entries:
            return None
        for entry in entries:
            self._take(entry)
        self.batches += 1
        tokens = sum(entry.row.tokens for entry in entries)
        return Batch(self.batches, entries, tokens, now)

    def drop(self, job: Job) -> None:
        """Forget the rows of `job` that still wait, if there are any."""
        rows = len(job.rows)
        self._rows -= rows - self._waiting.pop(job, rows)

    def _next_entries(self) -> Iterator[Entry]:
        head = next(iter(self._waiting), None)
        for job, start in self._waiting.items():
            if head is not None and job.model is head.model:
                yield from (Entry(job, index) for index in range(start, len(job.rows)))

    def _take(self, entry: Entry) -> None:
        self._rows -= 1
        self._waiting[entry.job] = entry.index + 1
        if entry.index + 1 == len(entry.job.rows):
            del self._waiting[entry.job]
