import asyncio

import pytest

from sidecar.serving.in_flight import InFlightCounter


async def test_there_are_none_once_all_have_left():
    """And not before, nor with the first; then again, whenever some have come in between."""
    tally = InFlightCounter()
    await asyncio.wait_for(tally.idle(), 20)
    for _ in range(2):
        with tally:
            with tally:
                waiting = asyncio.create_task(tally.idle())
                await asyncio.sleep(0)
                assert (tally.count, waiting.done()) == (2, False)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (tally.count, waiting.done()) == (1, False)
        await asyncio.wait_for(waiting, 20)
        assert tally.count == 0


async def test_who_fails_has_left_too():
    """With what it raised."""
    tally = InFlightCounter()
    with pytest.raises(ZeroDivisionError), tally:
        _ = 1 / 0
    await asyncio.wait_for(tally.idle(), 20)
    assert tally.count == 0
