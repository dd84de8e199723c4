"""How many of something there are right now, and waiting until there are none."""

import asyncio


class InFlightCounter:
    """Counts the `with` blocks that are entered. Used on one loop alone."""

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
        """Return once there are none."""
        await self._idle.wait()
