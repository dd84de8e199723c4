"""The memory budget of request bodies."""

import asyncio
from contextlib import ExitStack

import pytest

from sidecar.gateway.room import Body, Room, Stalled


@pytest.fixture
def stack() -> ExitStack:
    return ExitStack()


async def test_what_does_not_fit_waits_until_others_have_gone(stack: ExitStack) -> None:
    """A body that does not fit waits until others are released."""
    room = Room(100)
    first, second = stack.enter_context(room.hold()), ExitStack()
    await room.add(first, 70)
    waiting = asyncio.ensure_future(room.add(second.enter_context(room.hold()), 50))
    await asyncio.sleep(0)
    assert not waiting.done()
    stack.close()
    async with asyncio.timeout(10):
        await waiting


async def test_the_oldest_never_waits(stack: ExitStack) -> None:
    """The oldest body may exceed the budget, so that one body always makes progress."""
    room = Room(100)
    first, second = (stack.enter_context(room.hold()) for _ in range(2))
    await room.add(first, 50)
    await room.add(second, 50)
    async with asyncio.timeout(10):
        await room.add(first, 50)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await room.add(second, 1)


async def test_what_is_not_sent_takes_no_room(stack: ExitStack) -> None:
    """Bodies of which nothing has arrived take no memory, however many there are."""
    room = Room(100)
    last = [stack.enter_context(room.hold()) for _ in range(1000)][-1]
    await room.add(last, 100)


async def test_who_leaves_while_it_waits_takes_nothing(stack: ExitStack) -> None:
    """A body cancelled while it waits takes no memory and blocks nobody."""
    room = Room(100)
    await room.add(stack.enter_context(room.hold()), 100)
    with ExitStack() as others:
        leaving, staying = (others.enter_context(room.hold()) for _ in range(2))
        left, stayed = (asyncio.ensure_future(room.add(each, 100)) for each in (leaving, staying))
        await asyncio.sleep(0)
        left.cancel()
        stack.close()
        await stayed
        assert (leaving.size, staying.size) == (0, 100)


async def begin(room: Room, size: int, more: asyncio.Event) -> None:
    """Add `size` bytes of a body, then hold it until `more` is set."""
    with room.hold() as body:
        async with room.arriving(body):
            await room.add(body, size)
            await more.wait()


async def test_what_stalls_is_given_up_for_who_waits(stack: ExitStack) -> None:
    """A stalled body is dropped for one that waits; a body that is complete is kept."""
    room, more = Room(100, grace_seconds=0.0), asyncio.Event()
    whole = stack.enter_context(room.hold())
    async with room.arriving(whole):
        await room.add(whole, 10)
    stalling = asyncio.ensure_future(begin(room, 90, more))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await room.add(stack.enter_context(room.hold()), 90)
    with pytest.raises(Stalled):
        await stalling
    assert whole.size == 10


async def test_what_stalls_is_kept_while_nobody_waits() -> None:
    """A stalled body is kept while no other body needs its memory."""
    room, more = Room(100, grace_seconds=0.0), asyncio.Event()
    slow = asyncio.ensure_future(begin(room, 50, more))
    await begin(room, 50, _set())
    more.set()
    await slow


async def test_who_waits_for_room_does_not_stall(stack: ExitStack) -> None:
    """A body that waits for memory does not count as stalled, however long it waits."""
    room = Room(100, grace_seconds=0.0)
    await room.add(stack.enter_context(room.hold()), 100)
    waiting = [asyncio.ensure_future(begin(room, 50, _set())) for _ in range(2)]
    await asyncio.sleep(0)
    stack.close()
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)


async def test_who_has_waited_for_room_may_still_stall(stack: ExitStack) -> None:
    """A body that stalls after its wait for memory is dropped like any other."""
    room, never = Room(100, grace_seconds=0.0), asyncio.Event()
    stack.enter_context(room.hold())  # the oldest, which never waits
    with room.hold() as first:
        await room.add(first, 100)
        waiting = asyncio.ensure_future(begin(room, 100, never))
        await asyncio.sleep(0)
    for _ in range(10):  # it takes the memory that was released
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await room.add(stack.enter_context(room.hold()), 50)
    with pytest.raises(Stalled):
        await waiting


async def test_the_time_of_a_wait_is_not_the_bodys(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for memory does not use up the time in which a body's next bytes are due."""
    loop, late = asyncio.get_running_loop(), 0.0
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + late)
    room = Room(100, grace_seconds=50.0)
    await room.add(stack.enter_context(room.hold()), 100)
    with room.hold() as body:
        waiting = asyncio.ensure_future(room.add(body, 10))
        await asyncio.sleep(0)
        late = 1000.0
        stack.close()
        await waiting
        assert body.due - loop.time() == pytest.approx(50.0, abs=20.0)


async def test_room_is_free_again_to_the_byte() -> None:
    """Every byte of a body in pieces is released, even if an `add` was cancelled."""
    room = Room(100)
    for _ in range(3):
        with room.hold() as oldest, room.hold() as body:
            for _ in range(10):
                await room.add(body, 10)
            assert body.size == 100
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await room.add(body, 1)
            assert oldest.size == 0


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def test_another_deadline_is_no_stall() -> None:
    """A timeout of the caller's own, outside or inside `arriving`, stays a `TimeoutError`."""
    room = Room(100)
    with room.hold() as body, pytest.raises(TimeoutError):
        async with asyncio.timeout(0), room.arriving(body):
            await asyncio.Event().wait()
    with room.hold() as body, pytest.raises(TimeoutError):
        async with room.arriving(body), asyncio.timeout(0):
            await asyncio.Event().wait()


def test_a_byte_now_and_then_is_a_stall() -> None:
    """A body is late below 64 KiB/s on average, or after a second without any bytes."""
    body = Body(0.0, 1.0)
    for now in (0.4, 0.8, 1.2):
        body.record_arrival(1, now)
    assert 1.2 < body.due < 1.3
    body.record_arrival(1 << 30, 5.0)
    assert body.due == 6.0
    slow = Body(0.0, 1.0)
    slow.record_arrival(32 * 1024, 2.0)  # half a second's worth, a second late
    assert slow.due == 2.5
    slow.record_arrival(16 * 1024, 2.0)
    assert (slow.due, slow.size) == (2.75, 48 * 1024)
