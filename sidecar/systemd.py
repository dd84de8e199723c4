"""The service manager's protocol: the socket that it passes on, and what it wants to be told.

sd_listen_fds(3) and sd_notify(3): both are promised stable, and a few lines of the standard
library. Without a service manager all of it does nothing. A leaf: it imports nothing of ours.
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
)  # fmt: skip


class HandedOverError(ValueError):
    """What the service manager passed on cannot be used; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Manager:
    """What started this process, as far as it said so.

    `listener` is the listening Unix socket that it passed on. `watchdog_seconds` is how long
    it waits for a sign of life before it ends the process; None: for ever.
    """

    listener: socket.socket | None = None
    watchdog_seconds: float | None = None
    notify_address: str | None = None

    def notify(self, **state: str | int) -> None:
        """Send assignments such as `READY=1`; a manager that is gone is not told.

        Raises nothing: whether somebody listens is no concern of serving.
        """
        if self.notify_address is None:
            return
        lines = "\n".join(f"{name}={value}" for name, value in state.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(_address(self.notify_address))
            sender.sendall(lines.encode())


def take(environ: MutableMapping[str, str] = os.environ) -> Manager:
    """Return what `environ` says of the manager, and take it out: children are not concerned.

    Raises `HandedOverError` for other sockets than one listening Unix stream socket.
    """
    values = {name: environ.pop(name, "") for name in _VARIABLES}
    return Manager(
        listener=_listener(values),
        watchdog_seconds=_watchdog_seconds(values),
        notify_address=values["NOTIFY_SOCKET"] or None,
    )


def _listener(values: MutableMapping[str, str]) -> socket.socket | None:
    if not _is_for_us(values["LISTEN_PID"]) or not values["LISTEN_FDS"]:
        return None
    if values["LISTEN_FDS"] != "1":
        raise HandedOverError(
            f"{values['LISTEN_FDS']} sockets were passed on; Sidecar listens on one"
        )
    try:
        os.set_inheritable(_FIRST_FD, False)
        listener = socket.socket(fileno=_FIRST_FD)
    except OSError as error:
        raise HandedOverError(f"descriptor {_FIRST_FD} is no socket: {error.strerror}") from None
    if not _listens_at_a_path(listener):
        raise HandedOverError("the socket that was passed on is not ListenStream=/a/path")
    return listener


def _listens_at_a_path(sock: socket.socket) -> bool:
    kind = (sock.family, sock.type)
    return kind == (socket.AF_UNIX, socket.SOCK_STREAM) and bool(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def _watchdog_seconds(values: MutableMapping[str, str]) -> float | None:
    if not values["WATCHDOG_USEC"] or not _is_for_us(values["WATCHDOG_PID"] or str(os.getpid())):
        return None
    return int(values["WATCHDOG_USEC"]) / 1e6


def _is_for_us(pid: str) -> bool:
    return pid == str(os.getpid())


def _address(path: str) -> str:
    # A leading @ stands for the abstract namespace, which has a zero byte there.
    return f"\0{path[1:]}" if path.startswith("@") else path
