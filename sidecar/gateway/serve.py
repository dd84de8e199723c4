"""Runs the gateway, from the listening socket to the exit code.

Exit codes: 0 after a graceful stop, 1 after one that a second signal forced.
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
# Time for a caller to read a reply that was computed at the last moment.
_HAND_OVER_SECONDS = 5
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_OPEN = (
    "every user of this host has access: require a key with --api-key-file, or listen on a "
    "Unix socket with --uds"
)


def run(settings: Settings, listener: Listener, manager: Manager) -> int:
    """Serve until signalled, finish the requests in progress, and return the exit code."""
    return asyncio.run(_serve(settings, listener, manager))


async def _serve(settings: Settings, listener: Listener, manager: Manager) -> int:
    gateway = Gateway(settings, listener)
    notices = Notices()
    asyncio.get_running_loop().set_exception_handler(partial(_log_loop_failure, notices))
    door = Door(settings.max_connections)
    config = uvicorn.Config(
        gateway.app(),
        # A factory works: uvicorn only calls it.
        http=cast(
            "type[asyncio.Protocol]", partial(Connection, door, notices, settings.header_seconds)
        ),
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        backlog=BACKLOG,
        ws="none",
        lifespan="off",
        # Events replace uvicorn's own logs.
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # Requests end by their own timeout; this is for callers that do not read the answer.
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
    """uvicorn's server with Sidecar's signal handling, events and service manager."""

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
        """Handle signals; uvicorn's own handler would raise them again after the drain."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and notify the service manager."""
        await super().startup(sockets)
        address = self._listener.address
        self._manager.notify(READY=1, STATUS=f"Listening on {address}")
        log.info("gateway.listening", address=address, socket=str(self._settings.daemon))
        if self._listener.is_open:
            log.warning("gateway.open", address=address, message=_OPEN)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and finish the requests in progress."""
        self._listener.unlink()
        await super().shutdown(sockets)

    def log_stopped(self, exit_code: int) -> None:
        """Log the end of the process."""
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
    """Log a failure of the event loop; running out of descriptors, only once a minute.

    asyncio retries `accept` every second and reports each failure.
    """
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR:
        notices.turned_away(f"cannot accept connections: {error.strerror}")
        return
    log.error(
        "loop.failed",
        message=context["message"],
        traceback=trace(error) if error is not None else None,
    )
