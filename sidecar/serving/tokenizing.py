"""Texts to rows, off the loop where that pays, and never two calls of a model at once."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count

from client_lib.wire.messages import Priority
from sidecar.models.rows import Row, Text
from sidecar.serving.roster import ServedModel

# Staying on the loop saves a hop to a thread and back, 25 to 70 µs; it holds up everybody else
# for about 0.3 µs a character.
_INLINE_CHARACTERS = 400
# A request gives way to others after so much, 3 ms; a text that is longer is not divided.
_SLICE_CHARACTERS = 10_000
# How many interactive slices that come later may overtake a bulk one.
_OVERTAKING = 16


class Turnstile:
    """Lets one in at a time: in order of arrival, but interactive ones overtake bulk ones.

    Used on one loop alone.
    """

    def __init__(self) -> None:
        self._taken = False
        self._serial = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    async def enter(self, priority: Priority) -> None:
        """Return when it is this one's turn; it has to `leave`."""
        if not self._taken:
            self._taken = True
            return
        number = next(self._serial)
        ticket = number + _OVERTAKING if priority == "bulk" else number
        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (ticket, number, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came in the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Let the next one in."""
        while self._waiting:
            _, _, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False


class Tokenizer:
    """One model's tokenizer and its one thread."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._free = threading.Lock()
        self._turnstile = Turnstile()
        self._thread = ThreadPoolExecutor(1, f"tokenize-{model.name}")

    async def rows(self, texts: Sequence[Text], priority: Priority) -> list[Row]:
        """Return one row a text, in order."""
        if sum(map(_length, texts)) <= _INLINE_CHARACTERS and self._free.acquire(blocking=False):
            try:
                return self._model.tokenize(texts)
            finally:
                self._free.release()
        rows: list[Row] = []
        for some in _slices(texts):
            rows += await self._on_thread(some, priority)
        return rows

    async def stop(self) -> None:
        """Let what the thread has begun end, and join it."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def _on_thread(self, texts: Sequence[Text], priority: Priority) -> list[Row]:
        await self._turnstile.enter(priority)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._tokenize, texts)
        finally:
            self._turnstile.leave()

    def _tokenize(self, texts: Sequence[Text]) -> list[Row]:
        with self._free:
            return self._model.tokenize(texts)


def _slices(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Yield consecutive parts of `texts`: a text, and what else fits into a slice with it."""
    start, left = 0, _SLICE_CHARACTERS
    for index, text in enumerate(texts):
        left -= _length(text)
        if left < 0 and index > start:
            yield texts[start:index]
            start, left = index, _SLICE_CHARACTERS - _length(text)
    yield texts[start:]


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
