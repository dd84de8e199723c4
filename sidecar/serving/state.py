"""Where the daemon is in its life: one table, and a state that only moves along it.

STARTING ──▶ SERVING ──▶ DRAINING ──▶ STOPPED
               ▲ ▼          ▲
            RELOADING ──────┘

The way from each of them to STOPPED, the forced one, is not drawn.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """One phase of a daemon."""

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
    """The current state. `lifecycle` moves it, everybody else looks."""

    def __init__(self) -> None:
        self.state = State.STARTING

    @property
    def serves(self) -> bool:
        """Whether requests are taken; a reload refuses none."""
        return self.state in _SERVES

    def move(self, state: State) -> None:
        """Enter `state`; `ValueError` if that does not follow from the current one."""
        if state not in _NEXT[self.state]:
            raise ValueError(f"{self.state} cannot become {state}")
        self.state = state
