"""A connection for threads that reconnects when it is lost."""

import threading
from collections.abc import Mapping
from typing import Any

from client_lib.dial import connect
from client_lib.recovery import Recovery
from client_lib.sync_connection import Connection, ThreadCall
from client_lib.trust import Trust
from client_lib.wire.errors import (
    ClientClosed,
    ConnectionLost,
    Draining,
    Overloaded,
)
from client_lib.wire.protocol import Limits


class ReconnectingConnection:
    """One process's link to the daemon: the current connection, and its successors."""

    def __init__(self, path: str, trust: Trust, *, retries: bool) -> None:
        self._path = path
        self._trust = trust
        self._recovery = Recovery(path, retries)
        self._connection: Connection | None = None
        self._dialing = threading.Lock()
        self._closing = threading.Event()

    def begin(self, call: ThreadCall) -> None:
        """Send `call` over a working connection, dialing until there is one."""
        connection = self._connection
        if connection is None or not connection.usable:
            connection = self._redial(call)
        call.connection = connection
        connection.send(call)

    def finish(self, call: ThreadCall) -> Mapping[str, Any]:
        """Return the body of `call`'s reply, resending it to as many daemons as it takes."""
        while True:
            assert call.connection is not None
            try:
                return call.connection.wait(call)
            except Draining as error:
                call.connection.retire()
                self._recovery.connection_failed(call, error)
            except ConnectionLost as error:
                self._recovery.connection_failed(call, error)
            except Overloaded as error:
                self._wait(self._recovery.seconds_after_refusal(error, call.left))
            except BaseException:
                call.connection.abandon(call)
                raise
            self.begin(call)

    def close(self) -> None:
        """End the connection; calls in flight raise `ClientClosed`."""
        self._closing.set()
        with self._dialing:
            if self._connection is not None:
                self._connection.close(ClientClosed("the client was closed during the call"))

    def disown(self) -> None:
        """Release what belongs to the parent process, after a fork."""
        if self._connection is not None:
            self._connection.disown()

    def _redial(self, call: ThreadCall) -> Connection:
        # One thread dials for all; the others wait here and use its connection.
        if not self._dialing.acquire(timeout=min(call.left, threading.TIMEOUT_MAX)):
            raise self._recovery.unreachable()
        try:
            while self._connection is None or not self._connection.usable:
                self._attempt(call)
            return self._connection
        finally:
            self._dialing.release()

    def _attempt(self, call: ThreadCall) -> None:
        self._wait(min(self._recovery.seconds_before_dial(call), call.left))
        if call.left == 0:
            raise self._recovery.unreachable()
        try:
            limits = self._connection.limits if self._connection else Limits()
            self._connection = Connection(connect(self._path, self._trust), limits)
        except OSError as error:
            self._recovery.dial_failed(call, error)

    def _wait(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise ClientClosed("the client was closed during the call")
