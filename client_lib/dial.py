"""Connect to a daemon and check who runs it. Both clients share this."""

import os
import socket

from client_lib.trust import Trust, listener_of


def connect(path: str, trust: Trust) -> socket.socket:
    """Return a non-blocking socket, connected to a trusted user's daemon at `path`. Never waits.

    Raises `UntrustedDaemon` before anything is sent if the daemon is another user's, and `OSError`
    if there is none: `BlockingIOError` if its backlog is full. asyncio's own connect mistakes
    that for success on a Unix socket, which is why both clients connect here.
    """
    sock = _connected(path)
    uid = listener_of(sock)
    if trust.accepts(uid):
        return sock
    sock.close()
    return _connected_by_owner(path, trust, uid)


def _connected_by_owner(path: str, trust: Trust, listener: int) -> socket.socket:
    """Connect to any listener, provided that a trusted user owns the socket's file."""
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not trust.accepts(os.fstat(file).st_uid):
            raise trust.refusal(path, listener)
        # Through the descriptor: another file may be at the path by now.
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
