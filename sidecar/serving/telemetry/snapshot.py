"""How the daemon is, made for whoever asks: once for all who do so at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

_T = TypeVar("_T")
# Making it takes milliseconds of the interpreter's time, which the requests of others need.
_PAUSE_SECONDS = 0.05


class Snapshot(Generic[_T]):
    """What `make` returns, made after it was asked for, and no more often than 20 times a second.

    A user asks once at a time: who asks for it a thousand times at once gets one answer after the
    other, and others theirs in between. Used on one running loop.
    """

    def __init__(self, make: Callable[[], Awaitable[_T]], pause: float = _PAUSE_SECONDS) -> None:
        self._make = make
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._making = asyncio.Lock()
        self._made: tuple[float, _T] | None = None  # and when it was begun
        self._asking: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def get(self, uid: int) -> _T:
        """Return it to the user `uid`."""
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
