"""How much of a shared total one user may have, and one of the user's processes. Pure.

A share is a part of what the others leave, not of the whole: however many share, something is left
for newcomers, and a user alone gets the most. Switches divide the buffer that their ports share in
this way (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
1998); here it is applied on two levels.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.serving.admission.peer import Peer

OF_USERS = 0.75
"""The part of what all other users leave that one user may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """What is held now: in total, by one user, and by one of the user's processes."""

    in_all: int
    by_user: int
    by_process: int


def most_of_user(total: int, held: Occupancy) -> int:
    """Return how much of `total` the user may hold, given what others hold."""
    return max(0, int(OF_USERS * (total - (held.in_all - held.by_user))))


def most_of_process(total: int, part: float, held: Occupancy) -> int:
    """Return how much of `total` the process may hold, given what others hold.

    That is `part` of what the user's other processes leave of the user's share.
    """
    others = held.by_user - held.by_process
    return max(0, int(part * (most_of_user(total, held) - others)))


def plenty(part: float) -> float:
    """Return the part of a total below which nobody's share can be exceeded.

    A process's own bytes reduce its room in full, its siblings' by `part` of them, and other
    users' by less: what would fit if it were all its own always fits. Slightly less, for rounding.
    """
    return 0.99 * OF_USERS * part


class OccupancyTracker:
    """How much of something every process holds, and every user."""

    def __init__(self) -> None:
        self._in_all = 0
        self._by_user: Counter[int] = Counter()
        self._by_process: Counter[Peer] = Counter()

    def add(self, peer: Peer, size: int) -> None:
        """Add `size` to the process and its user."""
        self._in_all += size
        self._by_user[peer.uid] += size
        self._by_process[peer] += size

    def remove(self, peer: Peer, size: int) -> None:
        """Subtract `size`, and forget whoever holds nothing any more."""
        self._in_all -= size
        self._by_user[peer.uid] -= size
        if not self._by_user[peer.uid]:
            del self._by_user[peer.uid]
        self._by_process[peer] -= size
        if not self._by_process[peer]:
            del self._by_process[peer]

    def of(self, peer: Peer) -> Occupancy:
        """Return what is held now, from one process's point of view."""
        return Occupancy(
            in_all=self._in_all,
            by_user=self._by_user.get(peer.uid, 0),
            by_process=self._by_process.get(peer, 0),
        )

    @property
    def in_all(self) -> int:
        """What all hold together."""
        return self._in_all

    @property
    def by_user(self) -> Mapping[int, int]:
        """What each user holds, by uid."""
        return self._by_user

    @property
    def by_process(self) -> Mapping[Peer, int]:
        """What each process holds."""
        return self._by_process
