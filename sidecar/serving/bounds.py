"""How much may wait before a request is refused. Pure."""

from dataclasses import dataclass

from sidecar.serving.job import Load


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that may wait in each lane; one peer may have `peer_share` of each number."""

    rows: int = 16_384
    tokens: int = 4 * 2**20
    bytes: int = 256 * 2**20
    peer_share: float = 0.5

    @property
    def of_a_peer(self) -> "Bounds":
        """What may wait of one peer in a lane."""
        rows, tokens, size = (max(1, int(self.peer_share * most)) for most in self._sizes)
        return Bounds(rows, tokens, size, self.peer_share)

    def excess(self, held: Load, more: Load) -> float:
        """Return which part of `held` has to leave before `more` fits, from 0 to 1.

        More than 1: it would not fit into an empty queue.
        """
        loads = zip(_sizes_of(held), _sizes_of(more), self._sizes, strict=True)
        return max(_excess(*each) for each in loads)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.rows, self.tokens, self.bytes


def _sizes_of(load: Load) -> tuple[int, int, int]:
    return load.rows, load.tokens, load.bytes


def _excess(held: int, more: int, most: int) -> float:
    if more > most:
        return float("inf")
    return max(0, held + more - most) / max(1, held)
