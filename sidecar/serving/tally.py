"""How many requests are somewhere."""

import asyncio


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
