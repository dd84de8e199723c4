"""One request's rows as the queue and the threads see them, and what they use. Pure."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from client_lib.wire.messages import Priority
from sidecar.models.rows import Row
from sidecar.serving.postprocess import Postprocess
from sidecar.serving.registry import ServedModel

Key: TypeAlias = tuple[ServedModel, int, bool, bytes]
"""What determines a row's result: rows with equal keys have the same bytes."""

_TOKEN_BYTES = 16  # id and type, int64 each


def key_of(model: ServedModel, finish: Postprocess, row: Row) -> Key:
    """Return the key of a row: a flat tuple, since it is hashed again and again."""
    return model, finish.dimensions, finish.normalize, row.digest


@dataclass(frozen=True, slots=True)
class Usage:
    """Rows, their tokens, the bytes they hold, and their cost.

    A cost is the time for which a row is expected to keep one thread busy, in whole
    microseconds, so that sums return to exactly zero.
    """

    rows: int = 0
    tokens: int = 0
    bytes: int = 0
    cost: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.cost + other.cost,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.rows - other.rows,
            self.tokens - other.tokens,
            self.bytes - other.bytes,
            self.cost - other.cost,
        )

    def to_map(self) -> dict[str, float]:
        """Return the usage as `status` reports it."""
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "cost_ms": self.cost / 1000,
        }


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Job:
    """The rows of one request. Jobs are compared by identity.

    `costs` has the cost of each row (see `Usage`), above 0; `row_bytes` is what a row holds
    besides its tokens. `places` maps each row to its indexes among all `size` rows of the
    request: there are more of these if rows are equal or cached. `peer` is the process that sent
    the request, and `user` its owner: users take turns, and so do the peers of one user. Times
    are seconds on the caller's clock; without a deadline it is infinite.
    """

    model: ServedModel
    rows: tuple[Row, ...]
    costs: Sequence[int]
    finish: Postprocess
    arrived: float
    user: Hashable = None
    peer: Hashable = None
    priority: Priority = "interactive"
    deadline: float = math.inf
    row_bytes: int = 0
    places: Sequence[Sequence[int]] = ()
    size: int = 0
    load: Usage = field(init=False)
    keys: tuple[Key, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.size:
            object.__setattr__(self, "places", [(index,) for index in range(len(self.rows))])
            object.__setattr__(self, "size", len(self.rows))
        object.__setattr__(self, "load", self.load_from(0))
        keys = tuple(key_of(self.model, self.finish, row) for row in self.rows)
        object.__setattr__(self, "keys", keys)

    @property
    def entries(self) -> Iterator["Entry"]:
        """Its rows, in order."""
        return (Entry(self, index) for index in range(len(self.rows)))

    def load_from(self, start: int) -> Usage:
        """Return the usage of the rows from index `start` on."""
        rows = self.rows[start:]
        tokens = sum(row.tokens for row in rows)
        held = len(rows) * self.row_bytes + _TOKEN_BYTES * tokens
        return Usage(len(rows), tokens, held, sum(self.costs[start:]))


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a job, by its index."""

    job: Job
    index: int

    @property
    def row(self) -> Row:
        """The row itself."""
        return self.job.rows[self.index]

    @property
    def key(self) -> Key:
        """The key that determines its result."""
        return self.job.keys[self.index]

    @property
    def places(self) -> Sequence[int]:
        """Where its result goes, among all rows of the request."""
        return self.job.places[self.index]

    @property
    def cost(self) -> int:
        """Its expected cost."""
        return self.job.costs[self.index]

    @property
    def load(self) -> Usage:
        """Its usage."""
        tokens = self.row.tokens
        return Usage(1, tokens, self.job.row_bytes + _TOKEN_BYTES * tokens, self.cost)
