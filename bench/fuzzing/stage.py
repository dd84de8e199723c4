"""A real server, its sessions and its engine, and one peer after the other that does as scripted.

All on one event loop of asyncio's own (uvloop's cannot be looked into), whose every turn is timed:
for so long nobody else was served. Threads take turns at the interpreter as often as the daemon's.
What a peer sends is made before, what it reads is thrown away.
"""

import asyncio
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import structlog

from bench.fuzzing.script import Postprocess, Read, Send, Step
from client_lib import AsyncClient
from sidecar.serving.context import ServerContext
from sidecar.serving.engine.engine import Engine
from sidecar.serving.process.heap import freeze
from sidecar.serving.process.lifecycle import SWITCH_SECONDS
from sidecar.serving.process.loader import calibrate_cost
from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Lifecycle, State
from sidecar.serving.transport.listener import SocketFile
from sidecar.serving.transport.server import Server

_READ_BYTES = 2**18
_MOMENT_SECONDS = 0.01
_PATIENCE_SECONDS = 20.0  # until what a peer has asked for must be over


@dataclass(slots=True)
class Played:
    """What came of a script: the loop's longest turn in seconds, what went wrong, the replies."""

    longest: float = 0.0
    faults: list[str] = field(default_factory=list)
    reply_bytes: int = 0


class _Timed(selectors.DefaultSelector):
    """Times what the loop does between two looks at its sockets."""

    def __init__(self) -> None:
        super().__init__()
        self.restart()

    def restart(self) -> None:
        """Forget what was, and that the loop has stood still meanwhile."""
        self.longest = 0.0
        self._since = time.perf_counter()

    def select(self, timeout: float | None = None) -> Any:
        self.longest = max(self.longest, time.perf_counter() - self._since)
        try:
            return super().select(timeout)
        finally:
            self._since = time.perf_counter()


class Stage:
    """Serves `models` while it is entered."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = models
        self._selector = _Timed()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._folder = tempfile.TemporaryDirectory(prefix="sidecar-fuzz-")
        self._path = Path(self._folder.name) / "socket"
        self._faults: list[str] = []
        self._context: ServerContext
        self._other: AsyncClient

    def __enter__(self) -> Self:
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        structlog.configure(processors=[self._note], cache_logger_on_first_use=False)
        self._loop.set_exception_handler(self._log_loop_failure)
        self._stop = asyncio.Event()
        opened = self._loop.create_future()
        self._serving = self._loop.create_task(self._serve(opened))
        first = asyncio.wait((self._serving, opened), return_when=asyncio.FIRST_COMPLETED)
        self._loop.run_until_complete(first)
        if self._serving.done():  # it could not begin
            self._serving.result()
        freeze()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._loop.run_until_complete(self._serving)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._folder.cleanup()
        structlog.reset_defaults()
        sys.setswitchinterval(self._switch_seconds)

    def play(self, steps: Sequence[Step]) -> Played:
        """Let a peer do `steps`; return once nothing of it is left, or that took too long."""
        played = Played()
        self._faults = played.faults
        self._selector.restart()
        self._loop.run_until_complete(self._act(steps, played))
        self._context.engine.notes.flush()  # what failed is told a moment later
        if self._context.engine.crashed.done():
            played.faults.append(f"worker.crashed: {self._context.engine.crashed.result()!r}")
        played.longest = self._selector.longest
        return played

    async def _serve(self, opened: asyncio.Future[None]) -> None:
        costs = {model.name: calibrate_cost(model) for model in self._models}
        engine = Engine(self._models, costs, threads=1, bounds=QueueLimits())
        engine.start()
        listener = SocketFile.bind(self._path)
        settings = ServeSettings(socket=self._path, threads=1, memory_bytes=2**31)
        self._context = ServerContext(engine, settings, Lifecycle())
        self._context.life.move(State.SERVING)
        async with Server(self._context, listener), AsyncClient(self._path) as self._other:
            await self._other.ping()
            self._before = self._kept()
            opened.set_result(None)
            await self._stop.wait()
        await engine.stop()

    async def _act(self, steps: Sequence[Step], played: Played) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                with suppress(OSError):
                    await self._converse(steps, played)
                await self._other.ping()
                while self._kept() != self._before:  # noqa: ASYNC110 - what threads give back
                    await asyncio.sleep(0)
        except TimeoutError:
            played.faults.append(f"not over in {_PATIENCE_SECONDS:g} s: {self._kept()}")
            self._before = self._kept()  # told once, and not of every peer that comes later

    async def _converse(self, steps: Sequence[Step], played: Played) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, str(self._path))
            came = asyncio.Event()
            reading = self._loop.create_task(self._read(sock, played, came))
            try:
                for step in steps:
                    match step:
                        case Send(data):
                            await self._loop.sock_sendall(sock, data)
                        case Read():
                            await self._something(came)
                        case Postprocess():
                            sock.shutdown(socket.SHUT_WR)
                            await reading
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await reading

    async def _read(self, sock: socket.socket, played: Played, came: asyncio.Event) -> None:
        while data := await self._loop.sock_recv(sock, _READ_BYTES):
            played.reply_bytes += len(data)
            came.set()

    async def _something(self, came: asyncio.Event) -> None:
        """Wait until something has come since the last time, or for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT_SECONDS):
                await came.wait()
        came.clear()

    def _kept(self) -> tuple[Any, ...]:
        """Return what is held for peers: bytes, connections, rows, requests."""
        context = self._context
        queue = context.engine.status()["queue"]
        rows = {lane: load["rows"] for lane, load in queue.items() if lane != "bounds"}
        connections = sum(peer["connections"] for peer in context.access.to_list())
        budgets = (context.accounts.requests, context.accounts.decoding, context.accounts.control)
        held = [budget.to_map()["held_bytes"] for budget in budgets]
        return held, connections, rows, context.accepted.count, context.untaken.count

    def _note(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.get("traceback"):
            self._faults.append(f"{event['event']}: {event['traceback']}")
        raise structlog.DropEvent

    def _log_loop_failure(self, _: Any, context: dict[str, Any]) -> None:
        self._faults.append(f"loop.failed: {context['message']}: {context.get('exception')!r}")
