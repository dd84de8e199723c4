"""Status reports, made on demand and shared by those who ask at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

_T = TypeVar("_T")
# Making one holds the GIL for milliseconds, which other requests need.
_PAUSE_SECONDS = 0.05


class Snapshot(Generic[_T]):
    """The result of `make`, called after each request for it, but at least `pause` seconds apart.

    Each user's requests are answered one by one, so a user with a thousand of them does not delay
    other users. Use it on one running event loop.
    """

    def __init__(self, make: Callable[[], Awaitable[_T]], pause: float = _PAUSE_SECONDS) -> None:
        self._make = make
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._making = asyncio.Lock()
        self._made: tuple[float, _T] | None = None  # and when it was started
        self._asking: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def get(self, uid: int) -> _T:
        """Return a result that was made after this call, for the user `uid`."""
        asking = self._asking.get(uid)
        if asking is None:
            self._asking[uid] = asking = asyncio.Lock()
        async with asking:
            return await self._get()

    async def _get(self) -> _T:
        asked = self._loop.time()
        async with self._making:
            if self._made is None or self._made[0] < asked:
                if self._made is not None:
                    await asyncio.sleep(self._made[0] + self._pause - self._loop.time())
                began = self._loop.time()
                self._made = began, await self._make()
            return self._made[1]
