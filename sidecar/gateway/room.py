"""The memory that request bodies may take at a time, counted as they arrive."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

_LEAST_PACE = 64 * 1024
"""Minimum rate of a body in bytes per second while others wait for memory."""

_LOOK_SECONDS = 0.1


class Stalled(Exception):
    """A body arrived too slowly while others waited, and was dropped for them."""


class Body:
    """A request body in memory: its size so far, and when its next bytes are due."""

    def __init__(self, now: float, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self.size = 0
        self.due = now + grace_seconds
        self.waits = False
        self.arriving: asyncio.Timeout | None = None

    def record_arrival(self, size: int, now: float) -> None:
        """Add `size` bytes, and extend `due` by the time they take at the minimum rate."""
        self.size += size
        earned = max(self.due, now) + size / _LEAST_PACE
        self.due = min(earned, now + self._grace_seconds)

    def give_up(self, now: float) -> None:
        """Make `Room.arriving` raise `Stalled` in the task that reads the body."""
        if self.arriving is not None:
            self.arriving.reschedule(now)
            self.arriving = None


class Room:
    """A budget of `size` bytes; a body for which too little is free waits for others to finish.

    The oldest body never waits, so that one always makes progress; the budget is exceeded by one
    body at most. Only bytes that have arrived count, not those announced. While others wait, a
    body that stalls for `grace_seconds`, or arrives at less than 64 KiB/s, is dropped for them.
    """

    def __init__(self, size: int, grace_seconds: float = 1.0) -> None:
        self._free = size
        self._grace_seconds = grace_seconds
        self._bodies: dict[Body, None] = {}  # oldest first
        self._freed = asyncio.Event()

    @contextmanager
    def hold(self) -> Iterator[Body]:
        """Yield an empty body; release its bytes when the block ends."""
        body = Body(asyncio.get_running_loop().time(), self._grace_seconds)
        self._bodies[body] = None
        try:
            yield body
        finally:
            del self._bodies[body]
            self._free += body.size
            self._freed.set()

    @asynccontextmanager
    async def arriving(self, body: Body) -> AsyncIterator[None]:
        """Raise `Stalled` in the block, which reads `body`, if it is dropped for others."""
        try:
            async with asyncio.timeout(None) as body.arriving:
                yield
        except TimeoutError:
            # `give_up` clears `arriving`; any other deadline leaves it set.
            if body.arriving is None:
                raise Stalled from None
            raise
        finally:
            body.arriving = None

    async def add(self, body: Body, size: int) -> None:
        """Add `size` bytes to `body`, waiting until they fit."""
        loop = asyncio.get_running_loop()
        left = body.due - loop.time()
        body.waits = True
        while self._free < size and body is not next(iter(self._bodies)):
            await self._look_again(loop.time())
        body.waits = False
        now = loop.time()
        body.due = now + left  # its caller did not cause the wait
        body.record_arrival(size, now)
        self._free -= size

    async def _look_again(self, now: float) -> None:
        for body in self._bodies:
            if body.due < now and not body.waits:
                body.give_up(now)
        self._freed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._freed.wait()
