"""How a client reacts to a daemon that goes away or rejects a call. Pure: it never waits.

Both clients use it: they differ in how they wait, not in what they wait for.
"""

import os
import random
from dataclasses import dataclass

from client_lib.address import too_long
from client_lib.calls import Call
from client_lib.wire.errors import ConnectionLost, Draining, Overloaded, UntrustedDaemon

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_DOUBLINGS = 6  # from the first pause to past the longest

# A daemon that is starting, restarting or briefly busy causes these. Waiting cures nothing else
# (no permission, a path that cannot be a socket).
TRANSIENT = (FileNotFoundError, ConnectionError, BlockingIOError)


@dataclass(slots=True)
class Recovery:
    """The policy of one reconnecting connection to the daemon at `path`.

    Without `retries`, every failure is raised at once. `cause` is why the last connection or the
    last attempt failed, whichever call it was for.
    """

    path: str
    retries: bool
    cause: Exception | None = None

    def seconds_before_dial(self, call: Call) -> float:
        """Return how long to wait before the next attempt to connect for `call`."""
        return pause(call.failures, self.cause)

    def dial_failed(self, call: Call, error: OSError) -> None:
        """Record that connecting failed with `error`. Returns if it should be retried.

        Raises `UntrustedDaemon`, and `ConnectionLost` if a retry cannot help.
        """
        if isinstance(error, UntrustedDaemon):
            raise error
        if not isinstance(error, TRANSIENT):
            raise unreachable(self.path, error) from error
        self.connection_failed(call, error)

    def connection_failed(self, call: Call, cause: Exception) -> None:
        """Record that the connection of `call` ended with `cause`. Returns if it should reconnect.

        Raises `Draining` or `ConnectionLost` without retries.
        """
        self.cause = cause
        call.failures += 1
        if not self.retries:
            raise (
                cause if isinstance(cause, Draining) else unreachable(self.path, cause)
            ) from cause

    def seconds_after_refusal(self, refusal: Overloaded, left: float) -> float:
        """Return how long to wait before resending a rejected call with `left` seconds to go.

        Raises `refusal` without retries, or if the deadline would pass before that.
        """
        seconds = backoff(refusal)
        if not self.retries or seconds >= left:
            raise refusal
        return seconds

    def unreachable(self) -> ConnectionLost:
        """Return the error of a call for which no connection was made in time."""
        return unreachable(self.path, self.cause)


def pause(failures: int, cause: Exception | None = None) -> float:
    """Return how many seconds to wait after `failures` in a row: 0, then 20 ms to 1 s.

    The pause doubles with each failure, but stays at 20 ms while the backlog is full: the daemon
    is there, an attempt costs it nothing, and a client that tries rarely loses to those that try
    often. Half of it is random, so that the processes of a host do not return together.
    """
    if failures == 0:
        return 0.0
    if isinstance(cause, BlockingIOError):
        failures = 1
    full = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, _DOUBLINGS))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing


def backoff(refusal: Overloaded) -> float:
    """Return how many seconds to wait after `refusal`: `retry_after_ms`, up to twice that.

    The surplus is random, so that calls that were rejected together do not return together.
    """
    return (refusal.retry_after_ms or 0) / 1000 * random.uniform(1.0, 2.0)  # noqa: S311 - as above


def unreachable(path: str, cause: Exception | None) -> ConnectionLost:
    """Return the error of a call that found no daemon: the path, the cause, and what to do."""
    if length := too_long(path):
        return ConnectionLost(f"no daemon can listen at {path}: {length}")
    if isinstance(cause, PermissionError):
        advice = f"user {os.geteuid()} may not connect; join the group that owns the socket"
    else:
        advice = "is the daemon running? start it with `sidecar serve`"
    return ConnectionLost(f"no daemon answers at {path} ({cause or 'not tried'}): {advice}")
