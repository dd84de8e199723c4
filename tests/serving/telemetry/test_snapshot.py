"""Snapshots are fresh, shared by concurrent users, and limited in frequency."""

import asyncio

from sidecar.serving.telemetry.snapshot import Snapshot


class Maker:
    def __init__(self):
        self.made = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self):
        await self.gate.wait()
        self.made += 1
        return self.made


async def test_users_who_ask_at_once_share_an_answer():
    """Users who ask at the same time share a result that is made after they asked."""
    maker = Maker()
    latest = Snapshot(maker, pause=0)
    first = await latest.get(0)
    others = await asyncio.gather(*(latest.get(uid) for uid in range(5)))
    assert first == 1
    assert set(others) <= {2, 3}


async def test_what_was_begun_before_one_asked_is_no_answer():
    """A result that was started before a user asked is not returned to that user."""
    maker = Maker()
    latest = Snapshot(maker, pause=0)
    maker.gate.clear()
    early = asyncio.create_task(latest.get(0))
    await asyncio.sleep(0.01)
    late = asyncio.create_task(latest.get(1))
    await asyncio.sleep(0.01)
    maker.gate.set()
    assert (await early, await late) == (1, 2)


async def test_a_user_who_asks_for_many_holds_up_nobody():
    """A user's many requests do not delay another user's."""
    latest = Snapshot(Maker(), pause=0.001)
    many = [asyncio.create_task(latest.get(0)) for _ in range(50)]
    await asyncio.sleep(0)
    await latest.get(1)
    assert sum(task.done() for task in many) <= 3
    assert len(set(await asyncio.gather(*many))) == 50


async def test_nothing_is_kept_of_who_has_asked():
    """Nothing is kept of users who have been answered."""
    latest = Snapshot(Maker(), pause=0)
    for uid in range(100):
        await latest.get(uid)
    assert len(latest._asking) == 0


async def test_between_two_there_is_a_pause():
    """There is a pause between two snapshots, but none before the first."""
    loop = asyncio.get_running_loop()
    latest, before = Snapshot(Maker(), pause=0.05), loop.time()
    assert [await latest.get(0) for _ in range(3)] == [1, 2, 3]
    assert loop.time() - before >= 0.1
