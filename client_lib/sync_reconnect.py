"""How threads get a connection, lose it, and get another."""

import threading
from collections.abc import Mapping
from typing import Any

from client_lib.dial import PASSING, backoff, connect, pause, unreachable
from client_lib.sync_connection import Connection, ThreadCall
from client_lib.trust import Trust
from client_lib.wire.errors import (
    ClientClosed,
    ConnectionLost,
    Draining,
    Overloaded,
    UntrustedDaemon,
)
from client_lib.wire.protocol import Limits


class ReconnectingConnection:
    """One process's way to the daemon: the connection in use, and how to get another."""

    def __init__(self, path: str, trust: Trust, *, retries: bool) -> None:
        self._path = path
        self._trust = trust
        self._retries = retries
        self._connection: Connection | None = None
        self._dialing = threading.Lock()
        self._closing = threading.Event()
        self._trouble: Exception | None = None

    def begin(self, call: ThreadCall) -> None:
        """Send `call` over a connection that lives, dialing until there is one."""
        link = self._connection
        if link is None or not link.usable:
            link = self._redial(call)
        call.link = link
        link.send(call)

    def finish(self, call: ThreadCall) -> Mapping[str, Any]:
        """Return the body of `call`'s reply, however many daemons it takes."""
        while True:
            assert call.link is not None
            try:
                return call.link.wait(call)
            except Draining as error:
                call.link.retire()
                self._lose(call, error)
            except ConnectionLost as error:
                self._lose(call, error)
            except Overloaded as error:
                self._hold_back(call, error)
            except BaseException:
                call.link.abandon(call)
                raise
            self.begin(call)

    def close(self) -> None:
        """End the connection; calls in flight raise `ClientClosed`."""
        self._closing.set()
        with self._dialing:
            if self._connection is not None:
                self._connection.close(ClientClosed("the client was closed during the call"))

    def disown(self) -> None:
        """Let go of what belongs to the process that this one was forked from."""
        if self._connection is not None:
            self._connection.disown()

    def _redial(self, call: ThreadCall) -> Connection:
        # One dials for all; the others wait here and find its connection.
        if not self._dialing.acquire(timeout=min(call.left, threading.TIMEOUT_MAX)):
            raise unreachable(self._path, self._trouble)
        try:
            while self._connection is None or not self._connection.usable:
                self._attempt(call)
            return self._connection
        finally:
            self._dialing.release()

    def _attempt(self, call: ThreadCall) -> None:
        if self._closing.wait(min(pause(call.failures, self._trouble), call.left)):
            raise ClientClosed("the client was closed during the call")
        if call.left == 0:
            raise unreachable(self._path, self._trouble)
        try:
            limits = self._connection.limits if self._connection else Limits()
            self._connection = Connection(connect(self._path, self._trust), limits)
        except UntrustedDaemon:
            raise
        except PASSING as error:
            self._lose(call, error)
        except OSError as error:
            raise unreachable(self._path, error) from error

    def _hold_back(self, call: ThreadCall, refusal: Overloaded) -> None:
        seconds = backoff(refusal)
        if not self._retries or seconds >= call.left:
            raise refusal
        if self._closing.wait(seconds):
            raise ClientClosed("the client was closed during the call")

    def _lose(self, call: ThreadCall, cause: Exception) -> None:
        self._trouble = cause
        call.failures += 1
        if not self._retries:
            raise (
                cause if isinstance(cause, Draining) else unreachable(self._path, cause)
            ) from cause
