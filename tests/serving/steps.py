"""Cancel sessions at each of their awaits in turn, until one ends on its own."""

import asyncio
from collections.abc import Coroutine
from itertools import count

from .conftest import PATIENCE


class _Counted(Coroutine):
    """A coroutine that calls `waited` whenever it suspends."""

    def __init__(self, inner, waited):
        self._inner, self._waited = inner, waited

    def send(self, value):
        awaited = self._inner.send(value)
        self._waited()
        return awaited

    def throw(self, *error):
        awaited = self._inner.throw(*error)
        self._waited()
        return awaited

    def close(self):
        self._inner.close()

    def __await__(self):
        return self._inner.__await__()


class _Cancelling:
    """Cancels `task` once it and the tasks that it started have suspended `waits` times.

    It does so at once, or one iteration of the loop `later`, when the awaited result may be there.
    """

    def __init__(self, waits, *, later):
        self.left = waits
        self.task = None
        self._later = later
        self._loop = asyncio.get_running_loop()

    def __enter__(self):
        self._loop.set_task_factory(self._start)
        return self

    def __exit__(self, *_):
        self._loop.set_task_factory(None)

    def _start(self, loop, coroutine, **options):
        return asyncio.Task(_Counted(coroutine, self._waited), loop=loop, **options)

    def _waited(self):
        self.left -= 1
        if self.left == 0:
            self._loop.call_soon(self.task.cancel) if self._later else self.task.cancel()


async def cancelled_at_every_await(make, visit):
    """Yield finished dialogues of `make`, each cancelled one await later, until one is not.

    `visit` plays the peer until it hangs up. It returns the replies that it received.
    """
    for later in (False, True):
        for waits in count(1):
            with _Cancelling(waits, later=later) as cancelling:
                dialogue = await make()
                cancelling.task = dialogue.task
                replies = await visit(dialogue)
                dialogue.writer.close()
                async with asyncio.timeout(PATIENCE):
                    await asyncio.wait((dialogue.task,))
                    await asyncio.gather(dialogue.writer.wait_closed(), return_exceptions=True)
            await asyncio.sleep(0)
            yield dialogue
            if cancelling.left > 0:
                assert None not in replies
                break
