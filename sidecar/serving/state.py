"""The daemon's lifecycle: a state, and a table of the transitions that are allowed.

STARTING ──▶ SERVING ──▶ DRAINING ──▶ STOPPED
               ▲ ▼          ▲
            RELOADING ──────┘

Forced transitions, from each of these to STOPPED, are not shown.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """A state of the daemon."""

    STARTING = "starting"
    SERVING = "serving"
    RELOADING = "reloading"
    DRAINING = "draining"
    STOPPED = "stopped"


_NEXT: Mapping[State, frozenset[State]] = {
    State.STARTING: frozenset({State.SERVING, State.STOPPED}),
    State.SERVING: frozenset({State.RELOADING, State.DRAINING, State.STOPPED}),
    State.RELOADING: frozenset({State.SERVING, State.DRAINING, State.STOPPED}),
    State.DRAINING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}
_SERVES = {State.SERVING, State.RELOADING}


class Lifecycle:
    """The current state. Only `lifecycle` and `reload` change it."""

    def __init__(self) -> None:
        self.state = State.STARTING

    @property
    def serves(self) -> bool:
        """Whether requests are accepted; a reload rejects none."""
        return self.state in _SERVES

    def move(self, state: State) -> None:
        """Enter `state`. Raises `ValueError` if the current state does not lead to it."""
        if state not in _NEXT[self.state]:
            raise ValueError(f"{self.state} cannot become {state}")
        self.state = state
