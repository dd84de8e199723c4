"""Users share the event loop's time, however many connections they have."""

import asyncio
import time
from types import SimpleNamespace

from sidecar.serving.admission import loop_time as loop_time_module
from sidecar.serving.admission.loop_time import LoopTime


def busy(loop_time, uid):
    """Use up more than a user's time in a round."""
    loop_time.spend(uid, time.perf_counter() - 0.001)


async def test_who_has_spent_little_goes_on_at_once():
    """A user with time left continues at once, without yielding to the event loop."""
    loop_time, steps = LoopTime(lambda: False), []
    asyncio.get_running_loop().call_soon(steps.append, "another round")
    for _ in range(3):
        await loop_time.turn(1000)
        loop_time.spend(1000, time.perf_counter())
    assert steps == []


async def test_who_has_spent_a_rounds_time_waits_for_the_next():
    """A user whose time is used up waits for the next round, and other users do not."""
    loop_time, steps = LoopTime(lambda: False), []
    asyncio.get_running_loop().call_soon(steps.append, "another round")
    busy(loop_time, 1000)
    await loop_time.turn(1001)
    assert steps == []
    await loop_time.turn(1000)
    assert steps == ["another round"]


async def test_what_a_user_spends_adds_up(monkeypatch):
    """A user's time adds up to half a millisecond within a round, and is reset by the next."""
    now = 100.0
    monkeypatch.setattr(loop_time_module, "time", SimpleNamespace(perf_counter=lambda: now))
    loop_time = LoopTime(lambda: False)
    for _ in range(4):
        loop_time.spend(1000, now - 0.000_12)
        loop_time.spend(1001, now - 0.000_01)
    assert not loop_time.is_over(1000)
    loop_time.spend(1000, now - 0.000_021)
    assert loop_time.is_over(1000)
    assert not loop_time.is_over(1001)
    await asyncio.sleep(0)
    assert not loop_time.is_over(1000)
    loop_time.spend(1000, now - 0.000_499)
    assert not loop_time.is_over(1000)


async def test_who_waits_is_in_front_of_who_comes_in_a_new_round(soon):
    """Waiting connections go before new ones of the same user in the next round."""
    loop_time, order = LoopTime(lambda: False), []

    async def session(name):
        await loop_time.turn(1000)
        order.append(name)

    busy(loop_time, 1000)
    waiting = [asyncio.create_task(session(name)) for name in "abcdef"]
    await asyncio.sleep(0)
    await soon(lambda: order)
    await asyncio.gather(*waiting, session("x"))
    assert order == list("abcdefx")


async def test_connections_of_a_user_go_on_one_a_round():
    """A user's connections continue one per round, in order, without delaying another user."""
    loop_time, order = LoopTime(lambda: False), []

    async def session(uid, name):
        for _ in range(2):
            await loop_time.turn(uid)
            busy(loop_time, uid)
            order.append(name)

    async with asyncio.TaskGroup() as group:
        for name in "abcd":
            group.create_task(session(1000, name))
        group.create_task(session(1001, "X"))
    assert [name for name in order if name != "X"] == list("aabcdbcd")
    assert order.index("X") <= 1
    assert order[order.index("X") + 1 :].index("X") <= 2


async def test_who_leaves_while_waiting_holds_up_nobody():
    """A cancelled waiter passes its turn to the next, and nothing is left behind."""
    loop_time = LoopTime(lambda: False)
    busy(loop_time, 1000)
    leaving, staying = (asyncio.create_task(loop_time.turn(1000)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not loop_time._waiting


async def test_a_round_is_no_shorter_than_a_millisecond_while_threads_work():
    """While threads work, a round with waiting users lasts a millisecond; others do not wait."""
    loop_time = LoopTime(lambda: True)
    for _ in range(5):
        busy(loop_time, 1000)
        begun = time.perf_counter()
        await loop_time.turn(1001)
        assert not loop_time.is_over(1001)
        await loop_time.turn(1000)
        assert time.perf_counter() - begun >= 0.000_5


async def test_nobody_rests_while_no_thread_works():
    """While no thread works, the next round starts with the next iteration of the loop."""
    loop_time, rounds = LoopTime(lambda: False), 0

    def count():
        nonlocal rounds
        rounds += 1
        asyncio.get_running_loop().call_soon(count)

    count()
    busy(loop_time, 1000)
    await loop_time.turn(1000)
    assert rounds <= 3
