"""Who may connect, how many connections they may have, and how long they may stall."""

from dataclasses import dataclass
from typing import Any

from client_lib.wire.errors import Forbidden, Overloaded, ReplyError
from sidecar import defaults
from sidecar.serving.admission.fair_share import OccupancyTracker, most_of_user
from sidecar.serving.admission.peer import Peer

# Reserved for diagnosing a problem while other users have taken all they may.
OPERATORS_OWN = 8
_RETRY_AFTER_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """`uids` and `gids` may connect; if both are empty, so may anyone who can open the socket.

    A process may have `max_connections`. Within `stall_seconds`, the first frame has to arrive, a
    frame that was begun has to be complete, and a reply that was sent has to be read.
    """

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    max_connections: int = defaults.CONNECTIONS_PER_PROCESS
    stall_seconds: float = defaults.STALL_SECONDS

    def allows(self, peer: Peer) -> bool:
        """Whether `peer` may use the models, by its user or any of its groups."""
        if not self.uids and not self.gids:
            return True
        return peer.uid in self.uids or not self.gids.isdisjoint(peer.groups)


class AccessControl:
    """Admits peers and counts their connections, at most `total`.

    Users share these; a few more are reserved for operators. `policy` may be replaced at any time.
    """

    def __init__(self, policy: AccessPolicy, total: int) -> None:
        self.policy = policy
        self.total = total
        self._connections = OccupancyTracker()

    def refusal(self, peer: Peer) -> ReplyError | None:
        """Return the error that rejects another connection of `peer`; None if it is accepted."""
        held = self._connections.of(peer)
        if not self.policy.allows(peer):
            return forbidden(peer)
        if held.by_process >= self.policy.max_connections:
            return _too_many(f"this process already has {held.by_process} connections: share them")
        more = OPERATORS_OWN if peer.is_operator and not held.by_process else 0
        if held.by_user >= most_of_user(self.total, held) + more:
            return _too_many(
                f"user {peer.uid} already has {held.by_user} of {held.in_all} open connections "
                f"({self.total} allowed): close some, or share them"
            )
        return None

    def acquire(self, peer: Peer) -> None:
        """Count a new connection. Raises the error if it is rejected."""
        if (refusal := self.refusal(peer)) is not None:
            raise refusal
        self._connections.add(peer, 1)

    def authorize(self, peer: Peer) -> None:
        """Raise `Forbidden` for a peer that was admitted by rules that no longer hold."""
        if not self.policy.allows(peer):
            raise forbidden(peer)

    def release(self, peer: Peer) -> None:
        """Stop counting a connection that was admitted."""
        self._connections.remove(peer, 1)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the `peers` section of `status`."""
        return [
            {"pid": peer.pid, "uid": peer.uid, "gid": peer.gid, "connections": count}
            for peer, count in self._connections.by_process.items()
        ]


def forbidden(peer: Peer) -> Forbidden:
    """Return the error for a peer that may not use the daemon."""
    return Forbidden(f"user {peer.uid} is not allowed to use this daemon")


def _too_many(reason: str) -> Overloaded:
    return Overloaded(reason, retry_after_ms=_RETRY_AFTER_MS)
