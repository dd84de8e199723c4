"""From the listening socket to the exit code.

Exit codes: 0 after a stop that was asked for, 1 after one that a second signal forced.
"""

import asyncio
import errno
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import uvicorn

from sidecar.events import flush, log, trace
from sidecar.gateway.app import Gateway
from sidecar.gateway.connection import IDLE_SECONDS, Connection
from sidecar.gateway.door import Door
from sidecar.gateway.incoming import HEADER_BYTES
from sidecar.gateway.notices import Notices
from sidecar.gateway.settings import BACKLOG, Listener, Settings
from sidecar.systemd import Manager

EXIT_OK = 0
EXIT_FORCED = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What a reply that was computed at the last moment may take to be read.
_HAND_OVER_SECONDS = 5
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_OPEN = (
    "every user of this host may ask: give callers a key with --api-key-file, or listen on a "
    "Unix socket with --uds"
)


def run(settings: Settings, listener: Listener, manager: Manager) -> int:
    """Serve until told to stop, finish what was begun, and return the exit code."""
    return asyncio.run(_serve(settings, listener, manager))


async def _serve(settings: Settings, listener: Listener, manager: Manager) -> int:
    gateway = Gateway(settings, listener)
    notices = Notices()
    asyncio.get_running_loop().set_exception_handler(partial(_log_loop_failure, notices))
    door = Door(settings.max_connections)
    config = uvicorn.Config(
        gateway.app(),
        # uvicorn calls it as it would call the class.
        http=cast(
            "type[asyncio.Protocol]", partial(Connection, door, notices, settings.header_seconds)
        ),
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        backlog=BACKLOG,
        ws="none",
        lifespan="off",
        # What the server would say of itself, events do.
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # No request outlives its own time; this is for a caller who does not take the answer.
        timeout_graceful_shutdown=math.ceil(settings.timeout) + _HAND_OVER_SECONDS,
    )
    server = _Server(config, settings, listener, manager)
    try:
        await server.serve([listener.socket])
    finally:
        await gateway.close()
    server.log_stopped(EXIT_OK)
    return EXIT_OK


class _Server(uvicorn.Server):
    """uvicorn's server, with the signals, the events and the manager of a service of ours."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, listener: Listener, manager: Manager
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._listener = listener
        self._manager = manager
        self._started = time.monotonic()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals; uvicorn's own way raises them once more after the drain."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and tell whoever waits for that."""
        await super().startup(sockets)
        address = self._listener.address
        self._manager.notify(READY=1, STATUS=f"Listening on {address}")
        log.info("gateway.listening", address=address, socket=str(self._settings.daemon))
        if self._listener.is_open:
            log.warning("gateway.open", address=address, message=_OPEN)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and finish the requests that were begun."""
        self._listener.unlink()
        await super().shutdown(sockets)

    def log_stopped(self, exit_code: int) -> None:
        """Say that this was all."""
        seconds = round(time.monotonic() - self._started, 3)
        log.info("gateway.stopped", exit_code=exit_code, seconds=seconds)

    def _signalled(self, number: signal.Signals) -> None:
        if self.should_exit:
            self._listener.unlink()
            self.log_stopped(EXIT_FORCED)
            flush()
            os._exit(EXIT_FORCED)
        in_flight = len(self.server_state.tasks)
        self._manager.notify(STOPPING=1, STATUS=f"Finishing {in_flight} requests")
        log.info("gateway.draining", reason=number.name, in_flight=in_flight)
        self.should_exit = True


def _log_loop_failure(
    notices: Notices, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]
) -> None:
    """Say what the loop could not do; that it has no descriptor for a caller, once a minute.

    It tries that again after a second by itself, and says so each time.
    """
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR:
        notices.turned_away(f"no connection could be taken: {error.strerror}")
        return
    log.error(
        "loop.failed",
        message=context["message"],
        traceback=trace(error) if error is not None else None,
    )
