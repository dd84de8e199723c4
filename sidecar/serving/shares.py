"""How much of what all share one user may have, and one of the user's processes. Pure.

A part of what the others leave, and not of the whole: however many share, something is left for
whoever comes next, and who is alone has the most. It is what switches do with the buffer that
their ports share (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
switches", 1998), here on two levels.
"""

from dataclasses import dataclass

OF_USERS = 0.75
"""The part of what all other users leave that one user may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is held now: `in_all`, by one user, and by one of the user's processes."""

    in_all: int
    by_user: int
    by_process: int


def most_of_user(total: int, held: Held) -> int:
    """Return how much of `total` the user may hold while others hold what they do."""
    return max(0, int(OF_USERS * (total - (held.in_all - held.by_user))))


def most_of_process(total: int, part: float, held: Held) -> int:
    """Return how much of `total` the process may hold while others hold what they do.

    That is `part` of its user's share, of which the user's other processes have had theirs.
    """
    others = held.by_user - held.by_process
    return max(0, int(part * (most_of_user(total, held) - others)))
