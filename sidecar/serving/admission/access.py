"""Who may connect, how often, and for how long a stalled peer is waited for."""

from dataclasses import dataclass
from typing import Any

from client_lib.wire.errors import Forbidden, Overloaded, ReplyError
from sidecar.serving.admission.fair_share import OccupancyTracker, most_of_user
from sidecar.serving.admission.peer import Peer

# For whoever looks what is wrong, when everybody else has taken what they may.
OPERATORS_OWN = 8
_COME_BACK_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """`uids` and `gids` may connect; where both are empty, whoever may open the socket.

    One process may have `max_connections`. The first frame has to come, a frame that was begun
    has to be complete, and a reply that was sent has to be taken, within `stall_seconds`.
    """

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    max_connections: int = 64
    stall_seconds: float = 30.0

    def allows(self, peer: Peer) -> bool:
        """Whether `peer` may use the models, by its user or any of its groups."""
        if not self.uids and not self.gids:
            return True
        return peer.uid in self.uids or not self.gids.isdisjoint(peer.groups)


class AccessControl:
    """Lets peers in and counts their connections, at most `total`.

    Users share these; a few more are for operators alone. `policy` may be replaced at any time.
    """

    def __init__(self, policy: AccessPolicy, total: int) -> None:
        self.policy = policy
        self.total = total
        self._connections = OccupancyTracker()

    def refusal(self, peer: Peer) -> ReplyError | None:
        """Return why one more connection of `peer` is refused; None where it is not."""
        held = self._connections.of(peer)
        if not self.policy.allows(peer):
            return forbidden(peer)
        if held.by_process >= self.policy.max_connections:
            return _too_many(f"{held.by_process} connections of one process: share them")
        more = OPERATORS_OWN if peer.is_operator and not held.by_process else 0
        if held.by_user >= most_of_user(self.total, held) + more:
            return _too_many(
                f"{held.by_user} connections of user {peer.uid}, {held.in_all} of all users, and "
                f"{self.total} that there may be: close some, or share them"
            )
        return None

    def acquire(self, peer: Peer) -> None:
        """Count a connection in. Raises why it is refused."""
        if (refusal := self.refusal(peer)) is not None:
            raise refusal
        self._connections.add(peer, 1)

    def authorize(self, peer: Peer) -> None:
        """Raise `Forbidden` for a peer that has been let in by rules that no longer hold."""
        if not self.policy.allows(peer):
            raise forbidden(peer)

    def release(self, peer: Peer) -> None:
        """Count a connection out that was let in."""
        self._connections.remove(peer, 1)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the `peers` of a status."""
        return [
            {"pid": peer.pid, "uid": peer.uid, "gid": peer.gid, "connections": count}
            for peer, count in self._connections.by_process.items()
        ]


def forbidden(peer: Peer) -> Forbidden:
    """Return what is told to a peer that may not use the daemon."""
    return Forbidden(f"user {peer.uid} is not among those who may use this daemon")


def _too_many(reason: str) -> Overloaded:
    return Overloaded(reason, retry_after_ms=_COME_BACK_MS)
