"""The service manager's protocol: socket activation, readiness and the watchdog.

Implements sd_listen_fds(3) and sd_notify(3), whose interfaces are stable, with the standard
library alone. Does nothing without a service manager. A leaf module.
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
    """The socket passed by the service manager is unusable; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager that started this process, as described by the environment.

    `listener` is the listening Unix socket that it passed, if any. `watchdog_seconds` is how long
    it waits for a keep-alive before it kills the process; None for no watchdog.
    """

    listener: socket.socket | None = None
    watchdog_seconds: float | None = None
    notify_address: str | None = None

    def notify(self, **state: str | int) -> None:
        """Send assignments such as `READY=1`.

        Errors are ignored: serving must not depend on whether the manager still listens.
        """
        if self.notify_address is None:
            return
        lines = "\n".join(f"{name}={value}" for name, value in state.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(_address(self.notify_address))
            sender.sendall(lines.encode())


def take(environ: MutableMapping[str, str] = os.environ) -> Manager:
    """Return the manager described by `environ`, and remove its variables.

    Child processes must not inherit them. Raises `HandedOverError` if the manager passed anything
    but a single listening Unix stream socket.
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
            f"the service manager passed {values['LISTEN_FDS']} sockets; Sidecar listens on one"
        )
    try:
        os.set_inheritable(_FIRST_FD, False)
        listener = socket.socket(fileno=_FIRST_FD)
    except OSError as error:
        raise HandedOverError(f"descriptor {_FIRST_FD} is not a socket: {error.strerror}") from None
    if not _listens_at_a_path(listener):
        raise HandedOverError(
            "the service manager's socket is not a listening Unix stream socket: set "
            "ListenStream=/a/path"
        )
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
    # A leading @ denotes the abstract namespace, whose names start with a zero byte.
    return f"\0{path[1:]}" if path.startswith("@") else path
