"""Tokenize texts: short ones on the event loop, others on one thread, long ones on another."""

import asyncio
import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from client_lib.wire.messages import Priority
from sidecar.models.rows import Row, Text
from sidecar.serving.engine.fair_lock import FairLock
from sidecar.serving.registry import ServedModel

# A text's cost is counted in characters, about 0.3 µs each: its own, plus this many for its row.
_ROW = 25
# Staying on the loop saves a round trip to a thread, 25 to 70 µs, but blocks everybody else.
_INLINE_COST = 425
# A request yields to others after this much work, 3 ms; a longer text is not split.
_SLICE_COST = 10_000


class _Tokenizer:
    """One tokenizer thread and the lock for it; users take turns by characters."""

    def __init__(self, model: ServedModel, name: str) -> None:
        self._model = model
        # Held while the thread tokenizes, even for a cancelled request.
        self.free = threading.Lock()
        self._lock = FairLock()
        self._thread = ThreadPoolExecutor(1, name)

    async def rows(
        self, texts: Sequence[Text], prompt: str, priority: Priority, user: Hashable
    ) -> list[Row]:
        """Return one row per text, once it is their turn."""
        await self._lock.acquire(priority, user, _cost(texts, prompt))
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._tokenize, texts, prompt)
        finally:
            self._lock.release()

    async def stop(self) -> None:
        """Let the thread finish what it has started, and join it."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _tokenize(self, texts: Sequence[Text], prompt: str) -> list[Row]:
        with self.free:
            return self._model.tokenize(_prompted(texts, prompt))


class TokenizerPool:
    """One model's tokenizer and its two threads: long texts do not hold up short ones."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._short = _Tokenizer(model, f"tokenize-{model.name}")
        self._long = _Tokenizer(model, f"tokenize-{model.name}-long")

    async def rows(
        self,
        texts: Sequence[Text],
        priority: Priority,
        *,
        prompt: str = "",
        user: Hashable = None,
    ) -> list[Row]:
        """Return one row per text, in order, with `prompt` before each text that is not a pair.

        The prompt is added slice by slice: for all texts at once, that would block the event loop.
        """
        if _cost(texts, prompt) <= _INLINE_COST:
            rows = self._rows_now(texts, prompt)
            if rows is not None:
                return rows
        rows = []
        for part in _slices(texts, prompt):
            is_long = _cost(part, prompt) > _SLICE_COST
            tokenizer = self._long if is_long else self._short
            rows += await tokenizer.rows(part, prompt, priority, user)
        return rows

    async def stop(self) -> None:
        """Let the threads finish what they have started, and join them."""
        await self._short.stop()
        await self._long.stop()

    def _rows_now(self, texts: Sequence[Text], prompt: str) -> list[Row] | None:
        """Tokenize on the event loop; return None if a thread is tokenizing.

        A model may allow only one caller at a time.
        """
        if not self._short.free.acquire(blocking=False):
            return None
        try:
            if not self._long.free.acquire(blocking=False):
                return None
            try:
                return self._model.tokenize(_prompted(texts, prompt))
            finally:
                self._long.free.release()
        finally:
            self._short.free.release()


def _slices(texts: Sequence[Text], prompt: str = "") -> Iterator[Sequence[Text]]:
    """Yield consecutive parts of `texts`, each of as many as fit into a slice, but at least one."""
    start, left = 0, _SLICE_COST
    for index, text in enumerate(texts):
        cost = _cost_of(text, prompt)
        left -= cost
        if left < 0 and index > start:
            yield texts[start:index]
            start, left = index, _SLICE_COST - cost
    yield texts[start:]


def _prompted(texts: Sequence[Text], prompt: str) -> Sequence[Text]:
    if not prompt:
        return texts
    return [prompt + text if isinstance(text, str) else text for text in texts]


def _cost(texts: Sequence[Text], prompt: str) -> int:
    return sum(_cost_of(text, prompt) for text in texts)


def _cost_of(text: Text, prompt: str) -> int:
    own = len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
    return _ROW + len(prompt) + own
