"""From the first line to the exit code: load, listen, serve, drain, stop.

Exit codes: 0 after a stop that was asked for and lost nothing, 1 after one that was forced (a
second signal, or the drain's time ran out), 70 (EX_SOFTWARE) after inference crashed or hung.

A thread that computes cannot be interrupted, and is waited for only while that is wanted:
every forced way out goes through `_leave`.
"""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn, TypeAlias

import uvloop

from sidecar.events import log, trace
from sidecar.serving.cost import Cost
from sidecar.serving.desk import Desk
from sidecar.serving.engine import Engine
from sidecar.serving.roster import ServedModel
from sidecar.serving.server import Server
from sidecar.serving.settings import ServeSettings
from sidecar.serving.socket_file import Listener, PassedSocket, SocketFile, refuse_if_taken
from sidecar.serving.state import Life, State
from sidecar.serving.warm_up import learn
from sidecar.systemd import Manager

Load: TypeAlias = Callable[[], Sequence[ServedModel]]

EXIT_OK = 0
EXIT_FORCED = 1
EXIT_CRASHED = 70
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_UNMANAGED = Manager()
# While models load, the manager is asked this often for this much more time.
_LOADING_SECONDS, _PATIENCE_USEC = 5.0, 30_000_000


def run(load: Load, settings: ServeSettings, manager: Manager = _UNMANAGED) -> int:
    """Serve until told to stop, and return the exit code. See `serve`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(load, settings, manager))


async def serve(load: Load, settings: ServeSettings, manager: Manager = _UNMANAGED) -> int:
    """Load the models on a thread, listen, serve until a signal, drain; return the exit code.

    `manager` is the service manager: a listener that it passed on takes the place of
    `settings.socket`, and it is told how far things are. Raises `SocketUnavailable` if the
    socket cannot be had, and whatever `load` raises. Ends the process itself where a thread
    that still computes would be in the way.
    """
    return await _Daemon(settings, manager).run(load)


class _Daemon:
    def __init__(self, settings: ServeSettings, manager: Manager) -> None:
        self._settings = settings
        self._manager = manager
        self._life = Life()
        self._started = time.monotonic()
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._listener: Listener | None = None
        self._deadline: float | None = None
        self._exit_code = EXIT_OK

    async def run(self, load: Load) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_note_loop_failure)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        if self._manager.listener is None:
            # Known before a minute of loading rather than after it.
            refuse_if_taken(self._settings.socket)
        await self._serve(*await self._load(load))
        self._note_stopped(self._exit_code)
        return self._exit_code

    async def _load(self, load: Load) -> tuple[Sequence[ServedModel], Mapping[str, Cost]]:
        loading = asyncio.ensure_future(asyncio.to_thread(_load_and_learn, load))
        first = asyncio.ensure_future(
            asyncio.wait((loading, self._stop), return_when=asyncio.FIRST_COMPLETED)
        )
        while not first.done():
            # A model that is prepared first takes minutes; the manager's patience is seconds.
            self._manager.tell(STATUS="Loading models", EXTEND_TIMEOUT_USEC=_PATIENCE_USEC)
            await asyncio.wait((first,), timeout=_LOADING_SECONDS)
        if not loading.done():
            self._leave(EXIT_OK)
        return loading.result()

    async def _serve(self, models: Sequence[ServedModel], costs: Mapping[str, Cost]) -> None:
        settings = self._settings
        engine = Engine(
            models,
            costs,
            threads=settings.threads,
            bounds=settings.bounds,
            cache_bytes=settings.cache_bytes,
        )
        engine.crashed.add_done_callback(self._crashed)
        passed = self._manager.listener
        self._listener = PassedSocket(passed) if passed else SocketFile.bind(settings.socket)
        desk = Desk(engine, replace(settings, socket=self._listener.path), self._life)
        engine.start()
        try:
            async with Server(desk, self._listener) as server, self._watching(engine):
                self._ready(models)
                reason = await self._stop
                server.stop_accepting()
                self._begin_draining(reason, desk.tally.in_flight)
                await self._in_time(desk.tally.idle())
        finally:
            await self._in_time(engine.stop())

    def _ready(self, models: Sequence[ServedModel]) -> None:
        """Everything works from here on: the one place to tell whoever waits for that."""
        self._life.move(State.SERVING)
        # Code and models stay for good: no later collection has to walk through them.
        gc.collect()
        gc.freeze()
        names = [model.name for model in models]
        self._manager.tell(READY=1, STATUS=f"Serving {', '.join(names)}")
        log.info(
            "server.listening",
            socket=str(self._listener.path) if self._listener else None,
            models=names,
            threads=self._settings.threads,
            seconds=self._age(),
        )

    @asynccontextmanager
    async def _watching(self, engine: Engine) -> AsyncIterator[None]:
        """End the daemon when a row does not come to its end; until then, feed the watchdog."""
        limit = self._manager.watchdog_seconds or self._settings.hang_seconds
        watch = asyncio.create_task(self._watch(engine, limit))
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self, engine: Engine, limit: float) -> None:
        while (running := engine.longest_forward()) < limit / 2:
            if self._manager.watchdog_seconds:
                self._manager.tell(WATCHDOG=1)
            await asyncio.sleep(limit / 4)
        # Nothing can interrupt a forward; clients resubmit to the next daemon.
        log.error("worker.hung", seconds=round(running, 3))
        self._leave(EXIT_CRASHED)

    def _begin_draining(self, reason: str, in_flight: int) -> None:
        seconds = self._settings.drain_seconds
        self._life.move(State.DRAINING)
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._manager.tell(STOPPING=1, STATUS=f"Finishing {in_flight} requests")
        log.info("server.draining", reason=reason, in_flight=in_flight, drain_seconds=seconds)

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

    def _crashed(self, crashed: asyncio.Future[BaseException]) -> None:
        error = crashed.result()
        log.error("worker.crashed", error=type(error).__name__, traceback=trace(error))
        self._exit_code = EXIT_CRASHED
        if not self._stop.done():
            self._stop.set_result("an inference thread crashed")

    def _leave(self, exit_code: int) -> NoReturn:
        if self._listener is not None:
            self._listener.unlink()
        self._note_stopped(exit_code)
        os._exit(exit_code)

    def _note_stopped(self, exit_code: int) -> None:
        self._life.move(State.STOPPED)
        log.info("server.stopped", exit_code=exit_code, seconds=self._age())

    def _age(self) -> float:
        return round(time.monotonic() - self._started, 3)


def _load_and_learn(load: Load) -> tuple[Sequence[ServedModel], Mapping[str, Cost]]:
    models = load()
    return models, {model.name: learn(model) for model in models}


def _note_loop_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    traceback = trace(error) if isinstance(error, BaseException) else None
    log.error("loop.failed", message=context["message"], traceback=traceback)
