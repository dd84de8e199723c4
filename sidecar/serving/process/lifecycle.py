"""The daemon from start to exit: load, listen, serve and reload, drain, stop.

Exit codes: 0 after a requested stop that lost nothing, 1 after a forced one (a second signal, or
the drain timed out), 70 (EX_SOFTWARE) after inference crashed or hung.

A running forward cannot be interrupted, so exits that must not wait for one go through `_leave`.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

import uvloop

from sidecar.events import flush, log, trace
from sidecar.memory import read_memory
from sidecar.serving.admission.access import OPERATORS_OWN
from sidecar.serving.context import ServerContext
from sidecar.serving.engine.engine import Engine
from sidecar.serving.in_flight import InFlightCounter
from sidecar.serving.process import descriptors
from sidecar.serving.process.heap import freeze, report_changes
from sidecar.serving.process.loader import Loaded, extend_startup_timeout, load
from sidecar.serving.process.reload import Reloader
from sidecar.serving.settings import Configure, Setup
from sidecar.serving.state import Lifecycle, State
from sidecar.serving.telemetry.statistics import Statistics
from sidecar.serving.transport.listener import (
    Listener,
    PassedSocket,
    SocketFile,
    refuse_if_unusable,
)
from sidecar.serving.transport.server import Server
from sidecar.systemd import Manager

EXIT_OK = 0
EXIT_FORCED = 1
EXIT_CRASHED = 70
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long a drain waits for peers to read finished replies.
_UNTAKEN_SECONDS = 2.0
# A tenth of Python's default. An inference thread needs the GIL several times per row, and a busy
# event loop holds it for at least this long.
SWITCH_SECONDS = 0.000_5
_UNMANAGED = Manager()


def run(setup: Setup, configure: Configure, manager: Manager = _UNMANAGED) -> int:
    """Serve until asked to stop, and return the exit code. See `serve`."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(setup, configure, manager))


async def serve(setup: Setup, configure: Configure, manager: Manager = _UNMANAGED) -> int:
    """Load the models on a thread, listen, serve until a signal, drain; return the exit code.

    On SIGHUP, call `configure` for a new setup, and switch to it once its models are loaded.
    Report progress to `manager`, the service manager; a listener that it passed replaces
    `setup.settings.socket`. Raises `SocketUnavailable` if it cannot listen, and whatever
    `setup.load` raises. If a running thread prevents an orderly return, exit the process directly.
    """
    return await _Daemon(configure, manager).run(setup)


class _Daemon:
    def __init__(self, configure: Configure, manager: Manager) -> None:
        self._manager = manager
        self._reloader = Reloader(configure, self._engine, manager)
        self._life = Lifecycle()
        self._statistics = Statistics()
        self._started = time.monotonic()
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._listener: Listener | None = None
        self._deadline: float | None = None
        self._exit_code = EXIT_OK

    async def run(self, setup: Setup) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_loop_failure)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up, _has_terminal())
        if self._manager.listener is None:
            # Fail before a minute of loading rather than after it.
            refuse_if_unusable(setup.settings.socket)
        descriptors.raise_limit()
        await self._serve(self._open(await self._load(setup)), setup)
        if self._reloader.busy:
            self._leave(self._exit_code)
        self._log_stopped(self._exit_code)
        return self._exit_code

    async def _load(self, setup: Setup) -> Loaded:
        loading = asyncio.ensure_future(asyncio.to_thread(load, lambda: setup))
        async with extend_startup_timeout(self._manager, "Loading models"):
            await asyncio.wait((loading, self._stop), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            self._leave(EXIT_OK)
        return loading.result()

    def _open(self, loaded: Loaded) -> ServerContext:
        settings, passed = loaded.setup.settings, self._manager.listener
        engine = self._engine(loaded)
        self._listener = PassedSocket(passed) if passed else SocketFile.bind(settings.socket)
        engine.start()
        connections = descriptors.for_connections(OPERATORS_OWN)
        return ServerContext(
            engine, replace(settings, socket=self._listener.path), self._life, connections
        )

    def _engine(self, loaded: Loaded) -> Engine:
        settings = loaded.setup.settings
        engine = Engine(
            loaded.models,
            loaded.costs,
            threads=settings.threads,
            bounds=settings.bounds,
            cache_bytes=settings.cache_bytes,
            statistics=self._statistics,
        )
        engine.crashed.add_done_callback(self._crashed)
        return engine

    async def _serve(self, context: ServerContext, setup: Setup) -> None:
        assert self._listener is not None
        try:
            async with Server(context, self._listener) as server, asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(context))
                reporting = group.create_task(report_changes())
                reloading = group.create_task(self._reloader.run(context, setup))
                self._ready(context, self._listener)
                reason = await self._stop
                reloading.cancel()
                server.stop_accepting()
                self._begin_draining(reason, context)
                await self._in_time(context.accepted.idle())
                await self._wait_for_readers(context.untaken)
                watching.cancel()
                reporting.cancel()
        finally:
            for engine in context.engines:
                await self._in_time(engine.stop())

    def _ready(self, context: ServerContext, listener: Listener) -> None:
        """Start serving, and notify the service manager and the log."""
        self._life.move(State.SERVING)
        freeze()
        models = context.engine.model_names
        self._manager.notify(READY=1, STATUS=f"Serving {', '.join(models)}")
        log.info(
            "server.listening",
            socket=str(listener.path),
            models=models,
            threads=context.settings.threads,
            seconds=self._age(),
            pss_bytes=read_memory()["pss_bytes"],
        )

    async def _watch(self, context: ServerContext) -> None:
        """Feed the watchdog while inference makes progress; exit once it does not."""
        while (seconds := context.stuck_for()) < self._longest(context):
            if self._manager.watchdog_seconds:
                self._manager.notify(WATCHDOG=1)
            await asyncio.sleep(self._longest(context) / 2)
        # Nothing can interrupt a forward; clients retry with the next daemon.
        idle = context.longest_forward() < seconds
        reason = "rows are queued, but none is started" if idle else "a forward does not finish"
        log.error("worker.hung", seconds=round(seconds, 3), reason=reason)
        self._leave(EXIT_CRASHED)

    def _longest(self, context: ServerContext) -> float:
        """Return how long inference may make no progress, in seconds; a reload may change it."""
        watchdog = self._manager.watchdog_seconds
        return watchdog / 2 if watchdog else context.settings.hang_seconds

    def _begin_draining(self, reason: str, context: ServerContext) -> None:
        seconds, in_flight = context.settings.drain_seconds, context.accepted.count
        self._life.move(State.DRAINING)
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._manager.notify(STOPPING=1, STATUS=f"Finishing {in_flight} requests")
        log.info("server.draining", reason=reason, in_flight=in_flight, drain_seconds=seconds)

    async def _wait_for_readers(self, untaken: InFlightCounter) -> None:
        """Wait briefly for peers to read their replies; one that does not cannot delay a stop."""
        assert self._deadline is not None
        moment = min(asyncio.get_running_loop().time() + _UNTAKEN_SECONDS, self._deadline)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(moment):
                await untaken.idle()
        (log.warning if untaken.count else log.info)("server.drained", untaken=untaken.count)

    async def _in_time(self, step: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await step
        except TimeoutError:
            self._leave(self._exit_code or EXIT_FORCED)

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.done():
            self._leave(EXIT_FORCED)
        self._stop.set_result(number.name)

    def _hung_up(self, in_a_terminal: bool) -> None:
        if in_a_terminal and not _has_terminal():  # the signal means that it was closed
            if not self._stop.done():
                self._stop.set_result("its terminal was closed")
        else:
            self._reloader.ask()

    def _crashed(self, crashed: asyncio.Future[BaseException]) -> None:
        error = crashed.result()
        log.error("worker.crashed", error=type(error).__name__, traceback=trace(error))
        self._exit_code = EXIT_CRASHED
        if not self._stop.done():
            self._stop.set_result("an inference thread crashed")

    def _leave(self, exit_code: int) -> NoReturn:
        if self._listener is not None:
            self._listener.unlink()
        self._log_stopped(exit_code)
        flush()
        os._exit(exit_code)

    def _log_stopped(self, exit_code: int) -> None:
        self._life.move(State.STOPPED)
        log.info("server.stopped", exit_code=exit_code, seconds=self._age())

    def _age(self) -> float:
        return round(time.monotonic() - self._started, 3)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, as one started from a shell does."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _log_loop_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    traceback = trace(error) if isinstance(error, BaseException) else None
    log.error("loop.failed", message=context["message"], traceback=traceback)
