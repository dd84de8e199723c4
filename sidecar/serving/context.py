"""The state that all sessions share: engines, limits, request counters and status."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias, get_args

import psutil

import sidecar
from client_lib.wire.errors import Draining, ReplyError
from client_lib.wire.messages import MetricsFormat
from client_lib.wire.protocol import Limits, Refused
from client_lib.wire.replies import MetricsReply
from sidecar.events import log
from sidecar.memory import read_memory
from sidecar.serving.admission.access import AccessControl, forbidden
from sidecar.serving.admission.log_limiter import LogRateLimiter
from sidecar.serving.admission.loop_time import LoopTime
from sidecar.serving.admission.memory_estimator import LONG_READ_BYTES
from sidecar.serving.admission.peer import Peer
from sidecar.serving.engine.engine import Engine
from sidecar.serving.in_flight import InFlightCounter
from sidecar.serving.memory_accounts import MemoryAccounts
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Lifecycle
from sidecar.serving.telemetry.snapshot import Snapshot

Expel: TypeAlias = Callable[[ReplyError], None]

# Per user, the interval after which one more line may be logged.
_REJECTION_SECONDS = 60.0
_FAILURE_SECONDS = 0.2


class ServerContext:
    """What a session needs to serve its requests.

    `engines` ends with the current engine; during a reload, one that still finishes its requests
    may precede it. `accepted` counts requests without an answer, and `untaken` answers that
    their peers have not read: a drain waits for the former, and only briefly for the latter.
    """

    def __init__(
        self, engine: Engine, settings: ServeSettings, life: Lifecycle, connections: int = 2**16
    ) -> None:
        self.engines = [engine]
        self.settings = settings
        self.life = life
        self.accepted = InFlightCounter()
        self.untaken = InFlightCounter()
        self.access = AccessControl(settings.access, connections)
        self.inbox = bytearray(LONG_READ_BYTES)
        self.loop_time = LoopTime(lambda: self.accepted.count > 0)
        self.failures = LogRateLimiter(_FAILURE_SECONDS)
        self.statistics = engine.statistics
        self._rejections = LogRateLimiter(_REJECTION_SECONDS)
        self._registrations: dict[object, tuple[Peer, Expel]] = {}
        self._status = Snapshot(self._make_status)
        self._metrics = {
            form: Snapshot(partial(self._make_metrics, form)) for form in get_args(MetricsFormat)
        }
        self._started = time.monotonic()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._memory_at_start = read_memory()
        taken = self._memory_at_start["rss_bytes"]
        self.accounts = MemoryAccounts(settings, engine.estimator, taken)

    @property
    def engine(self) -> Engine:
        """The engine for new requests."""
        return self.engines[-1]

    def engine_for(self, peer: Peer) -> Engine:
        """Return the engine for a request of `peer`. Raises `Draining` or `Forbidden`."""
        if not self.life.serves:
            raise Draining("the daemon is shutting down; retry with the next one")
        self.access.authorize(peer)
        return self.engine

    def swap(self, engine: Engine, settings: ServeSettings) -> Engine:
        """Send new requests to `engine`, apply `settings`, and return the previous engine.

        Disconnects the peers that the new settings do not admit.
        """
        old = self.engine
        self.engines.append(engine)
        self.settings = settings
        self.access.policy = settings.access
        self.accounts.update(settings, engine.estimator)
        for peer, expel in list(self._registrations.values()):
            if not settings.access.allows(peer):
                expel(forbidden(peer))
        return old

    def connect(self, peer: Peer) -> ExitStack:
        """Admit a connection of `peer` and reserve its memory; close the result to undo both.

        Raises `Forbidden` or `Overloaded`.
        """
        self.access.acquire(peer)
        with ExitStack() as stack:
            stack.callback(self.access.release, peer)
            stack.callback(self.accounts.reserve_connection(peer).release)
            return stack.pop_all()

    @contextmanager
    def registered(self, peer: Peer, expel: Expel) -> Iterator[None]:
        """Register the session of a connected peer while the block runs.

        Raises `Forbidden` if a reload has excluded the peer since it connected. Calls `expel` if a
        later one does.
        """
        self.access.authorize(peer)
        key = object()
        self._registrations[key] = peer, expel
        try:
            yield
        finally:
            del self._registrations[key]

    def log_rejection(self, peer: Peer, refused: Refused) -> None:
        """Count a rejected frame or connection and log it, within its user's log limit."""
        self.statistics.refused(refused.error.code)
        if (unlogged := self._rejections.take(peer.uid)) is not None:
            log.warning(
                "peer.rejected",
                **peer.named(),
                request_id=refused.id,
                code=refused.error.code,
                reason=refused.error.message,
                fatal=refused.fatal,
                unlogged=unlogged,
            )

    def log_stall(self, peer: Peer, awaited: str, seconds: float) -> None:
        """Log that a peer has stalled for `seconds`, within its user's log limit."""
        if (unlogged := self._rejections.take(peer.uid)) is not None:
            log.warning(
                "peer.stalled",
                **peer.named(),
                awaited=awaited,
                seconds=seconds,
                unlogged=unlogged,
            )

    def longest_forward(self) -> float:
        """Return how long the oldest running row of any engine has been computing, in seconds."""
        return max(engine.longest_forward() for engine in self.engines)

    def stuck_for(self) -> float:
        """Return how long inference has made no progress, in seconds; see `worker.hung`."""
        return max(self.longest_forward(), *(engine.standstill() for engine in self.engines))

    def hello(self, limits: Limits) -> dict[str, Any]:
        """Return the body of the reply to `hello` on a connection with `limits`."""
        return {
            "server": f"sidecar/{sidecar.__version__}",
            "limits": asdict(limits),
            "pid": os.getpid(),
        }

    def _healthy(self) -> bool:
        """Whether no engine has crashed, or made no progress for half of `hang_seconds`."""
        crashed = any(engine.crashed.done() for engine in self.engines)
        return not crashed and self.stuck_for() < self.settings.hang_seconds / 2

    async def status(self, peer: Peer) -> dict[str, Any]:
        """Return the body of the reply to `status`; memory is in bytes."""
        return await self._status.get(peer.uid)

    async def metrics(self, peer: Peer, form: MetricsFormat) -> dict[str, str]:
        """Return the body of the reply to `metrics`: the status as text in format `form`."""
        return await self._metrics[form].get(peer.uid)

    async def _make_status(self) -> dict[str, Any]:
        # On a thread: the kernel walks the whole address space for this.
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
            "peers": self.access.to_list(),
            "memory": {
                **memory,
                "at_start": self._memory_at_start,
                "ceiling_bytes": self.settings.memory_bytes,
                **self.accounts.to_map(),
            },
            "process": process,
            "statistics": self.statistics.to_map(),
        }

    async def _make_metrics(self, form: MetricsFormat) -> dict[str, str]:
        status = await self._make_status()
        content_type, text = await asyncio.to_thread(_exposition, status, form)
        return MetricsReply(content_type, text).to_map()

    def _requests(self) -> dict[str, Any]:
        whole = self.statistics.since_start()
        return {
            "completed": whole.completed,
            "failed": whole.failed_by_code,
            "in_flight": self.accepted.count,
            "untaken": self.untaken.count,
        }


def _exposition(status: Mapping[str, Any], form: MetricsFormat) -> tuple[str, str]:
    # Imported late: prometheus_client takes 4 MB, and not every daemon is asked for metrics.
    from sidecar.serving.telemetry.prometheus import exposition  # noqa: PLC0415

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
