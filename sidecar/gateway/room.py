"""How much of callers' requests the gateway holds at a time."""

import asyncio


class Room:
    """So many bytes. Who finds too few free waits, unread, until those before it have gone.

    However short, a request takes a part of `most` requests, so that there are never more.
    """

    def __init__(self, size: int, most: int) -> None:
        self._free = size
        self._least = size // most
        self._turn = asyncio.Lock()  # its waiters get it in order
        self._freed = asyncio.Event()

    async def take(self, size: int) -> int:
        """Take room for `size` bytes, once there is some; return what is to be given back."""
        size = max(size, self._least)
        async with self._turn:
            while self._free < size:
                self._freed.clear()
                await self._freed.wait()
            self._free -= size
        return size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self._free += size
        self._freed.set()
