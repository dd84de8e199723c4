"""Who may connect, how often, and for how long a stalled peer is waited for."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from client_lib.wire.errors import Forbidden, Overloaded, ReplyError
from sidecar.serving.peer import Peer

_COME_BACK_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`uids` and `gids` may connect; where both are empty, whoever may open the socket.

    One process may have `max_connections`. A frame that was begun has to be complete, and a
    reply that was sent has to be taken, within `stall_seconds` of waiting.
    """

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    max_connections: int = 64
    stall_seconds: float = 30.0

    def admit(self, peer: Peer) -> bool:
        """Whether `peer` may use the models, by its user or any of its groups."""
        if not self.uids and not self.gids:
            return True
        return peer.uid in self.uids or not self.gids.isdisjoint(peer.groups)


class Door:
    """Lets peers in and counts their connections. `rules` may be replaced at any time."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._connections: Counter[Peer] = Counter()

    def enter(self, peer: Peer) -> ReplyError | None:
        """Count a connection in, or return why it is refused."""
        if not self.rules.admit(peer):
            return _forbidden(peer)
        if self._connections[peer] >= self.rules.max_connections:
            return Overloaded(
                f"{self.rules.max_connections} connections of one process: share them",
                retry_after_ms=_COME_BACK_MS,
            )
        self._connections[peer] += 1
        return None

    def check(self, peer: Peer) -> None:
        """Raise `Forbidden` for a peer that has been let in by rules that no longer hold."""
        if not self.rules.admit(peer):
            raise _forbidden(peer)

    def leave(self, peer: Peer) -> None:
        """Count a connection out that was let in."""
        self._connections[peer] -= 1
        if not self._connections[peer]:
            del self._connections[peer]

    def to_list(self) -> list[dict[str, Any]]:
        """Return the `peers` of a status."""
        return [
            {"pid": peer.pid, "uid": peer.uid, "gid": peer.gid, "connections": count}
            for peer, count in self._connections.items()
        ]


def _forbidden(peer: Peer) -> Forbidden:
    return Forbidden(f"user {peer.uid} is not among those who may use this daemon")
