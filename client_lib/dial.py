"""How a daemon is reached and made sure of, and what its absence means. Both clients share this."""

import os
import random
import socket

from client_lib.address import too_long
from client_lib.trust import Trust, listener_of
from client_lib.wire.errors import ConnectionLost, Overloaded

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_DOUBLINGS = 6  # From the first pause to past the longest.

# Causes that a daemon which starts, restarts or is busy for a moment explains. Everything
# else (no permission, a path that cannot be one) will not get better by waiting.
PASSING = (FileNotFoundError, ConnectionError, BlockingIOError)


def connect(path: str, trust: Trust) -> socket.socket:
    """Return a non-blocking socket, connected to a trusted user's daemon at `path`. Never waits.

    Raises `UntrustedDaemon` where the daemon is somebody else's; nothing has been sent to it
    then. Raises `OSError` where there is none; one whose backlog is full is `BlockingIOError`.
    asyncio's own connect takes that for success on a Unix socket, which is why both clients come
    here.
    """
    sock = _connected(path)
    uid = listener_of(sock)
    if trust.accepts(uid):
        return sock
    sock.close()
    return _connected_by_owner(path, trust, uid)


def _connected_by_owner(path: str, trust: Trust, listener: int) -> socket.socket:
    """Connect, whoever listens, if the socket's file is a trusted user's."""
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not trust.accepts(os.fstat(file).st_uid):
            raise trust.refusal(path, listener)
        # To the file that was looked at, whatever is at its path by now.
        return _connected(f"/proc/self/fd/{file}")
    except FileNotFoundError:  # there is no /proc
        raise trust.refusal(path, listener) from None
    finally:
        os.close(file)


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def pause(failures: int, cause: Exception | None = None) -> float:
    """Return how long to wait before the next attempt, in seconds: none, then 20 ms to 1 s.

    It stays at 20 ms where the backlog is full: the daemon is there, an attempt costs it nothing,
    and whoever tries seldom never finds room beside those who try all the time. Half of it is
    random, so that the processes of a host do not all come back at once.
    """
    if failures == 0:
        return 0.0
    if isinstance(cause, BlockingIOError):
        failures = 1
    full = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, _DOUBLINGS))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing


def backoff(refusal: Overloaded) -> float:
    """Return how long to wait after `refusal`, in seconds: what it asks for, up to twice that.

    How much more is random, so that those who were refused together do not come back together.
    """
    return (refusal.retry_after_ms or 0) / 1000 * random.uniform(1.0, 2.0)  # noqa: S311 - as above


def unreachable(path: str, cause: Exception | None) -> ConnectionLost:
    """Return the error of a call that found no daemon: where it looked, why, what to do."""
    if length := too_long(path):
        return ConnectionLost(f"no daemon can listen at {path}: {length}")
    if isinstance(cause, PermissionError):
        advice = f"the user {os.geteuid()} may not use it; join the group that owns the socket"
    else:
        advice = "is the daemon running? start it with `sidecar serve`"
    return ConnectionLost(f"no daemon answers at {path} ({cause or 'not tried'}): {advice}")
