import asyncio

import pytest

from sidecar.serving.in_flight import InFlightCounter


async def test_there_are_none_once_all_have_left():
    """`idle` returns once the count is zero, not earlier, and again after the next round."""
    in_flight = InFlightCounter()
    await asyncio.wait_for(in_flight.idle(), 20)
    for _ in range(2):
        with in_flight:
            with in_flight:
                waiting = asyncio.create_task(in_flight.idle())
                await asyncio.sleep(0)
                assert (in_flight.count, waiting.done()) == (2, False)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (in_flight.count, waiting.done()) == (1, False)
        await asyncio.wait_for(waiting, 20)
        assert in_flight.count == 0


async def test_who_fails_has_left_too():
    """A block that raises is no longer in flight."""
    in_flight = InFlightCounter()
    with pytest.raises(ZeroDivisionError), in_flight:
        _ = 1 / 0
    await asyncio.wait_for(in_flight.idle(), 20)
    assert in_flight.count == 0
