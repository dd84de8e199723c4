"""Reload on SIGHUP: read the configuration, load its models, and swap engines transparently.

The new models load on a thread while the old ones serve. Then new requests go to the new engine;
the old one finishes its own, and its memory is released. A failure before the swap changes
nothing.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, TypeAlias

from sidecar import events
from sidecar.events import log, trace
from sidecar.serving.context import ServerContext
from sidecar.serving.engine.engine import Engine
from sidecar.serving.process.heap import trim
from sidecar.serving.process.loader import Loaded, extend_startup_timeout, load
from sidecar.serving.settings import Configure, ServeSettings, Setup
from sidecar.serving.state import State
from sidecar.systemd import Manager

MakeEngine: TypeAlias = Callable[[Loaded], Engine]


class Reloader:
    """Reloads on request, one at a time; requests during a reload cause one more.

    `make` creates an engine for loaded models. `busy` is true while a thread loads them, which
    cannot be interrupted.
    """

    def __init__(self, configure: Configure, make: MakeEngine, manager: Manager) -> None:
        self._configure = configure
        self._make = make
        self._manager = manager
        self.busy = False
        self._asked = asyncio.Event()
        self._retiring: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Request a reload."""
        self._asked.set()

    async def run(self, context: ServerContext, setup: Setup) -> NoReturn:
        """Carry out the requested reloads, starting from `setup`, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._asked.wait()
                self._asked.clear()
                setup = await self._reload(context, setup, group)

    async def _reload(
        self, context: ServerContext, setup: Setup, group: asyncio.TaskGroup
    ) -> Setup:
        started = time.monotonic()
        context.life.move(State.RELOADING)
        self._manager.notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1_000)
        log.info("server.reloading", models=context.engine.model_names)
        failure = ""
        try:
            async with extend_startup_timeout(self._manager, "Reloading"):
                new, engine = await self._load()
        except Exception as error:  # noqa: BLE001 - whatever failed, the old engine goes on serving
            failure = _log_failure(error, started)
        else:
            self._swap(context, engine, new.settings, group)
            _log_reloaded(setup, new, engine, started)
            setup = new
        context.life.move(State.SERVING)
        status = f"Serving {', '.join(context.engine.model_names)}{failure}"
        self._manager.notify(READY=1, STATUS=status)
        return setup

    def _swap(
        self,
        context: ServerContext,
        engine: Engine,
        settings: ServeSettings,
        group: asyncio.TaskGroup,
    ) -> None:
        socket, target = context.settings.socket, context.settings.log_target
        if settings.socket != socket and self._manager.listener is None:
            log.warning("setting.ignored", setting="socket", value=settings.socket, kept=socket)
        if settings.log_target != target:
            log.warning(
                "setting.ignored", setting="log_target", value=settings.log_target, kept=target
            )
        events.select(settings.selection)
        old = context.swap(engine, replace(settings, socket=socket, log_target=target))
        self._retiring = group.create_task(_retire(context, old))

    async def _load(self) -> tuple[Setup, Engine]:
        """Return the setup as configured now, and a started engine for it."""
        if self._retiring is not None:  # at most two sets of models in memory
            await self._retiring
        self.busy = True
        loaded = await asyncio.to_thread(self._load_here)
        engine = self._make(loaded)
        try:
            engine.start()
        except RuntimeError:  # the system cannot start another thread
            await engine.stop()
            raise
        return loaded.setup, engine

    def _load_here(self) -> Loaded:
        try:
            return load(self._configure)
        finally:
            self.busy = False


async def _retire(context: ServerContext, engine: Engine) -> None:
    """Wait for `engine` to finish its requests, stop it, and release its memory."""
    started = time.monotonic()
    models = engine.model_names
    await engine.idle()
    await engine.stop()
    context.engines.remove(engine)
    del engine
    log.info("engine.retired", models=models, seconds=_since(started), **await trim())


def _log_reloaded(old: Setup, new: Setup, engine: Engine, started: float) -> None:
    before = old.configured
    log.info(
        "server.reloaded",
        changed=[name for name, value in new.configured.items() if before.get(name) != value],
        models=engine.model_names,
        threads=new.settings.threads,
        seconds=_since(started),
    )


def _log_failure(error: Exception, started: float) -> str:
    """Log why nothing was changed; return the reason as a suffix for the status line."""
    log.error(
        "server.reload_failed",
        error=type(error).__name__,
        reason=str(error),
        seconds=_since(started),
        traceback=trace(error),
    )
    in_one_line = " ".join(f"{error}".split()) or type(error).__name__
    return f"; not reloaded: {in_one_line}"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
