"""How much is held at a time."""

import asyncio

import pytest

from sidecar.gateway.room import Room


async def test_what_does_not_fit_waits_until_others_have_gone() -> None:
    """And then takes its room."""
    room = Room(100, most=10)
    taken = await room.take(70)
    waiting = asyncio.ensure_future(room.take(50))
    await asyncio.sleep(0)
    assert not waiting.done()
    room.give(taken)
    assert await waiting == 50


async def test_a_long_one_is_not_overtaken_for_ever() -> None:
    """Short ones that come later wait behind it, though they would fit."""
    room = Room(100, most=10)
    taken = await room.take(60)
    order: list[int] = []
    waiting = [asyncio.ensure_future(room.take(size)) for size in (80, 10)]
    for each in waiting:
        each.add_done_callback(lambda done: order.append(done.result()))
    await asyncio.sleep(0)
    assert order == []
    room.give(taken)
    await asyncio.gather(*waiting)
    assert order == [80, 10]


async def test_requests_are_counted_by_a_least_part() -> None:
    """Ten that hold nothing fill a room for ten."""
    room = Room(100, most=10)
    taken = [await room.take(0) for _ in range(10)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await room.take(0)
    room.give(taken[0])
    assert await room.take(0) == taken[0]


async def test_who_leaves_while_it_waits_takes_nothing() -> None:
    """And holds nobody up."""
    room = Room(100, most=10)
    taken = await room.take(100)
    leaving, staying = (asyncio.ensure_future(room.take(100)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    room.give(taken)
    assert await staying == 100
