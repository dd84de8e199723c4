"""What all sessions share: the engines, the limits, the count of requests, the status."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import psutil

import sidecar
from client_lib.wire.errors import Draining, Overloaded, ReplyError, TooLarge
from client_lib.wire.messages import MetricsFormat, Request
from client_lib.wire.protocol import Limits
from sidecar.events import log
from sidecar.memory import read_memory
from sidecar.serving.complaints import Complaints
from sidecar.serving.door import Door
from sidecar.serving.engine import Engine
from sidecar.serving.footprint import CONNECTION_BYTES, Memory
from sidecar.serving.ledger import Budget, Hold, Ledger
from sidecar.serving.peer import Peer
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Life
from sidecar.serving.tally import Tally

_LEAST_WAIT_MS = 10


class Desk:
    """Where sessions bring their requests.

    `engines` has the one that takes what is new, and after a reload, before it, the one that
    still finishes what it had taken. `accepted` counts the requests that have no answer yet,
    `untaken` the answers that their peers have not taken yet: the daemon owes the former, and
    waits for the latter a moment.
    """

    def __init__(self, engine: Engine, settings: ServeSettings, life: Life) -> None:
        self.engines = [engine]
        self.settings = settings
        self.life = life
        self.accepted = Tally()
        self.untaken = Tally()
        self.door = Door(settings.rules)
        self.complaints = Complaints()
        self.statistics = engine.statistics
        self._started = time.monotonic()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._memory_at_start = read_memory()
        self._footprint = engine.footprint
        self.ledger = Ledger(self._budget())

    @property
    def engine(self) -> Engine:
        """The engine that takes what is new."""
        return self.engines[-1]

    def engine_for(self, peer: Peer) -> Engine:
        """Return the engine for a request of `peer`. Raises `Draining` or `Forbidden`."""
        if not self.life.serves:
            raise Draining("the daemon is shutting down; ask the next one")
        self.door.check(peer)
        return self.engine

    def swap(self, engine: Engine, settings: ServeSettings) -> Engine:
        """Let `engine` take what is new, and return the one that no longer does."""
        old = self.engine
        self.engines.append(engine)
        self.settings = settings
        self.door.rules = settings.rules
        self._footprint = engine.footprint
        self.ledger.budget = self._budget()
        return old

    @contextmanager
    def visit(self, peer: Peer) -> Iterator[None]:
        """One connection of `peer`, while it lasts. Raises `Forbidden` or `Overloaded`."""
        if (refusal := self.door.enter(peer)) is not None:
            raise refusal
        with ExitStack() as leaving:
            leaving.callback(self.door.leave, peer)
            if (hold := self.ledger.hold(peer, CONNECTION_BYTES, lasting=True)) is None:
                raise self._no_room(0)
            leaving.callback(hold.release)
            yield

    def hold(self, peer: Peer, request: Request) -> Hold:
        """Hold what `request` needs until its reply has been taken.

        Raises `TooLarge` or `Overloaded`.
        """
        size = self._footprint.of_request(request)
        if (hold := self.ledger.hold(peer, size)) is not None:
            return hold
        raise self._no_room(size)

    async def room(self, peer: Peer, frame: int) -> Hold:
        """Hold what a frame of so many bytes needs until it is a request, once that fits.

        Raises `Overloaded` where it does not for as long as a peer may stall.
        """
        try:
            async with asyncio.timeout(self.settings.rules.stall_seconds):
                return await self.ledger.room(peer, self._footprint.of_frame(frame))
        except TimeoutError:
            raise self._no_room(0) from None

    def _no_room(self, size: int) -> ReplyError:
        budget = self.ledger.budget
        if size + CONNECTION_BYTES > budget.of_a_peer:
            return TooLarge(
                f"the request takes up to {size} bytes of memory; for all that a process asks "
                f"there are {budget.of_a_peer}: split it"
            )
        seconds = min(self.ledger.seconds_until_room, self.settings.rules.stall_seconds)
        wait_ms = max(_LEAST_WAIT_MS, round(1000 * seconds))
        message = f"no memory is left for more requests; retry in {wait_ms} ms"
        return Overloaded(message, retry_after_ms=wait_ms)

    def _budget(self) -> Budget:
        settings = self.settings
        memory = Memory(
            ceiling=settings.memory_bytes,
            taken=self._memory_at_start["rss_bytes"] + settings.cache_bytes,
            most=2 * settings.bounds.bytes,
            peer_share=settings.bounds.peer_share,
        )
        least = self._footprint.of_largest(settings.limits)
        if memory.left < least:
            log.warning(
                "memory.scarce",
                ceiling_bytes=memory.ceiling,
                taken_bytes=memory.taken,
                left_bytes=memory.left,
                budget_bytes=least,
            )
        return memory.budget(least)

    def longest_forward(self) -> float:
        """Return for how long the oldest row that any engine computes has been, in seconds."""
        return max(engine.longest_forward() for engine in self.engines)

    def stuck_for(self) -> float:
        """Return for how long inference has made no progress, in seconds; see `worker.hung`."""
        return max(self.longest_forward(), *(engine.standstill() for engine in self.engines))

    def hello(self, limits: Limits) -> dict[str, Any]:
        """Return the body of the answer to `hello` on a connection with `limits`."""
        return {
            "server": f"sidecar/{sidecar.__version__}",
            "limits": asdict(limits),
            "pid": os.getpid(),
        }

    def _healthy(self) -> bool:
        """Whether inference makes progress; long before the daemon gives up on itself."""
        crashed = any(engine.crashed.done() for engine in self.engines)
        return not crashed and self.stuck_for() < self.settings.hang_seconds / 2

    async def status(self) -> dict[str, Any]:
        """Return what the daemon is and how it is; memory in bytes."""
        # The kernel walks the whole address space for this: not on the loop.
        memory, process = await asyncio.to_thread(_measure)
        return {
            "version": sidecar.__version__,
            "pid": os.getpid(),
            "socket": str(self.settings.socket),
            "state": self.life.state.value,
            "healthy": self._healthy(),
            "since": self._since,
            "up_seconds": round(time.monotonic() - self._started, 3),
            **self.engine.status(),
            "requests": self._requests(),
            "peers": self.door.to_list(),
            "memory": {
                **memory,
                "at_start": self._memory_at_start,
                "ceiling_bytes": self.settings.memory_bytes,
                **self.ledger.to_map(),
            },
            "process": process,
            "statistics": self.statistics.to_map(),
        }

    async def metrics(self, form: MetricsFormat) -> dict[str, str]:
        """Return the body of the answer to `metrics`: the status in figures, as text."""
        status = await self.status()
        content_type, text = await asyncio.to_thread(_exposition, status, form)
        return {"content_type": content_type, "text": text}

    def _requests(self) -> dict[str, Any]:
        whole = self.statistics.since_start()
        return {
            "completed": whole.completed,
            "failed": whole.failed_by_code,
            "in_flight": self.accepted.count,
            "untaken": self.untaken.count,
        }


def _exposition(status: Mapping[str, Any], form: MetricsFormat) -> tuple[str, str]:
    # Late: not every daemon is asked for metrics, and what writes them is 4 MB.
    from sidecar.serving.exposition import exposition  # noqa: PLC0415

    return exposition(status, form)


def _measure() -> tuple[dict[str, int], dict[str, float]]:
    return read_memory(), _process()


def _process() -> dict[str, float]:
    process = psutil.Process()
    times = process.cpu_times()
    return {
        "started": process.create_time(),
        "cpu_seconds": times.user + times.system,
        "virtual_bytes": process.memory_info().vms,
        "open_files": process.num_fds(),
        "max_files": process.rlimit(psutil.RLIMIT_NOFILE)[0],
        "threads": process.num_threads(),
    }
