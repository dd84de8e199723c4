"""How much may wait before requests are rejected. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar import defaults
from sidecar.serving.admission.fair_share import (
    OF_USERS,
    Occupancy,
    most_of_process,
    most_of_user,
    plenty,
)
from sidecar.serving.scheduler.job import Usage

_NOTHING = Occupancy(in_all=0, by_user=0, by_process=0)


@dataclass(frozen=True, slots=True)
class LaneUsage:
    """What waits in a lane when a process sends a job: in total, of its user, and of itself."""

    in_all: Usage
    of_user: Usage
    of_process: Usage


@dataclass(frozen=True, slots=True)
class Excess:
    """The part that has to leave before a job fits: of the process's own rows, or of all rows.

    From 0 to 1; `of_own` is infinite if that does not suffice. Both are 0 if the job fits.
    """

    of_own: float
    of_all: float


_FITS = Excess(0, 0)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The most that may wait in each lane.

    Within each limit, a user may have three quarters of what the other users leave, and a
    process `peer_share` of what its user's other processes leave of that.
    """

    rows: int = defaults.QUEUE_ROWS
    tokens: int = defaults.QUEUE_TOKENS
    bytes: int = defaults.QUEUE_BYTES
    peer_share: float = defaults.PEER_SHARE

    @property
    def of_lone_process(self) -> Usage:
        """What one process may have waiting if nothing else waits: at least one of each."""
        return Usage(*(self._most(total, _NOTHING) for total in self._sizes))

    def excess(self, waiting: LaneUsage, more: Usage) -> Excess:
        """Return what has to leave before a process may add `more`, which fits an empty queue."""
        in_all = waiting.in_all
        # The usual case: what fits if all of it is this process's own fits whoever owns it.
        if (
            in_all.rows + more.rows < self._plenty * self.rows
            and in_all.tokens + more.tokens < self._plenty * self.tokens
            and in_all.bytes + more.bytes < self._plenty * self.bytes
        ):
            return _FITS
        held = _held(waiting)
        each = [self._excess(*size) for size in zip(self._sizes, held, _sizes(more), strict=True)]
        return Excess(max(e.of_own for e in each), max(e.of_all for e in each))

    def _excess(self, total: int, held: Occupancy, more: int) -> Excess:
        own, siblings = held.by_process, held.by_user - held.by_process
        if own + more <= self._most(total, held):
            return _FITS
        over = own + more - self.peer_share * (most_of_user(total, held) - siblings)
        others = OF_USERS * (held.in_all - held.by_user)
        # How much the excess falls by the time everything that waits has left.
        falls = own + self.peer_share * (siblings + others)
        of_own = over / own if over <= own else float("inf")
        return Excess(of_own, min(1.0, over / falls) if falls else 1.0)

    def _most(self, total: int, held: Occupancy) -> int:
        most = most_of_process(total, self.peer_share, held)
        return most if held.in_all else max(1, most)

    @property
    def _plenty(self) -> float:
        return plenty(self.peer_share)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.rows, self.tokens, self.bytes


def _sizes(load: Usage) -> tuple[int, int, int]:
    return load.rows, load.tokens, load.bytes


def _held(waiting: LaneUsage) -> Iterator[Occupancy]:
    loads = waiting.in_all, waiting.of_user, waiting.of_process
    for in_all, of_user, own in zip(*map(_sizes, loads), strict=True):
        yield Occupancy(in_all=in_all, by_user=of_user, by_process=own)
