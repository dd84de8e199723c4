"""What all sessions share: the engine, the limits, the count of requests, the status."""

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Any

import psutil

import sidecar
from sidecar.serving.door import Door
from sidecar.serving.engine import Engine
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Life


class Tally:
    """How many requests are in flight."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def arrived(self) -> None:
        """Count a request in."""
        self.in_flight += 1
        self._idle.clear()

    def left(self) -> None:
        """Count a request out, however it ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Return once no request is in flight."""
        await self._idle.wait()


class Desk:
    """Where sessions bring their requests."""

    def __init__(self, engine: Engine, settings: ServeSettings, life: Life) -> None:
        self.engine = engine
        self.settings = settings
        self.life = life
        self.tally = Tally()
        self.door = Door(settings.rules)
        self.statistics = engine.statistics
        self._started = time.monotonic()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._memory_at_start = _memory()
        self._worry_seconds = settings.hang_seconds / 4

    def hello(self) -> dict[str, Any]:
        """Return the body of the answer to `hello`."""
        limits = self.settings.limits
        return {
            "server": f"sidecar/{sidecar.__version__}",
            "limits": {"max_frame_bytes": limits.max_frame_bytes, "max_inputs": limits.max_inputs},
            "pid": os.getpid(),
        }

    def _healthy(self) -> bool:
        """Whether rows come to their end; long before the daemon gives up on itself."""
        engine = self.engine
        return not engine.crashed.done() and engine.longest_forward() < self._worry_seconds

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
            "memory": {**memory, "at_start": self._memory_at_start},
            "process": process,
            "statistics": self.statistics.to_map(),
        }

    def _requests(self) -> dict[str, Any]:
        whole = self.statistics.since_start()
        return {
            "completed": whole.completed,
            "failed": whole.failed_by_code,
            "in_flight": self.tally.in_flight,
        }


def _measure() -> tuple[dict[str, int], dict[str, float]]:
    return _memory(), _process()


def _memory() -> dict[str, int]:
    memory = psutil.Process().memory_full_info()
    return {"rss_bytes": memory.rss, "pss_bytes": memory.pss}


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
