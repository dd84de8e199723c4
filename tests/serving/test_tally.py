"""Counting what is there, and waiting until nothing is."""

import asyncio
from contextlib import suppress

from sidecar.serving.tally import Tally


async def test_it_is_idle_once_the_last_has_left():
    """However they came, and also where one of them failed."""
    tally = Tally()
    await tally.idle()
    with tally:
        waiting = asyncio.create_task(tally.idle())
        with suppress(ZeroDivisionError), tally:
            assert tally.count == 2
            _ = 1 // 0
        assert tally.count == 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert tally.count == 0
