"""Count what is in flight, and wait until nothing is."""

import asyncio


class InFlightCounter:
    """Counts the `with` blocks that are being executed. Use it on one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self.count += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until the count is zero."""
        await self._idle.wait()
