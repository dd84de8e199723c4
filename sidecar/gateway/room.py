"""How much of callers' bodies the gateway holds at a time, counted as it arrives."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

_LEAST_PACE = 64 * 1024
"""Bytes a second that a body has to bring where others wait for its room."""

_LOOK_SECONDS = 0.1


class Stalled(Exception):
    """A body came too slowly while others waited, and was given up for them."""


class Body:
    """A body that is held: how long it is by now, and until when it is on time."""

    def __init__(self, now: float, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self.size = 0
        self.due = now + grace_seconds
        self.waits = False
        self.arriving: asyncio.Timeout | None = None

    def record_arrival(self, size: int, now: float) -> None:
        """Count `size` more bytes, which are the time that they may take at the least pace."""
        self.size += size
        earned = max(self.due, now) + size / _LEAST_PACE
        self.due = min(earned, now + self._grace_seconds)

    def give_up(self, now: float) -> None:
        """Have whoever reads the body end with `Stalled`."""
        if self.arriving is not None:
            self.arriving.reschedule(now)
            self.arriving = None


class Room:
    """So many bytes. What finds too few free waits until others have gone.

    The oldest body never waits: so one always comes to its end, and what is held exceeds the size
    by one body at most. What is announced takes no room, only what has come; and what stalls
    while others wait, for `grace_seconds` or at less than 64 KiB/s, is given up for them.
    """

    def __init__(self, size: int, grace_seconds: float = 1.0) -> None:
        self._free = size
        self._grace_seconds = grace_seconds
        self._bodies: dict[Body, None] = {}  # the oldest first
        self._freed = asyncio.Event()

    @contextmanager
    def hold(self) -> Iterator[Body]:
        """Hold a body, of no bytes yet, until the block ends."""
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
        """Raise `Stalled` in the block, which reads `body`, when it is given up for others."""
        try:
            async with asyncio.timeout(None) as body.arriving:
                yield
        except TimeoutError:
            # Whoever gave it up has let go of it; another deadline has not.
            if body.arriving is None:
                raise Stalled from None
            raise
        finally:
            body.arriving = None

    async def add(self, body: Body, size: int) -> None:
        """Count `size` more bytes of `body`, once there is room for them."""
        loop = asyncio.get_running_loop()
        left = body.due - loop.time()
        body.waits = True
        while self._free < size and body is not next(iter(self._bodies)):
            await self._look_again(loop.time())
        body.waits = False
        now = loop.time()
        body.due = now + left  # its wait was no fault of its caller's
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
