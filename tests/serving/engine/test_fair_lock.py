import asyncio

from sidecar.serving.engine.fair_lock import OVERTAKING, FairLock


async def queued(lock, order, *names):
    """Return tasks that wait for their turn, by name; "b" is bulk."""

    async def pass_through(name):
        await lock.acquire("bulk" if name == "b" else "interactive")
        order.append(name)
        lock.release()

    tasks = [asyncio.create_task(pass_through(name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_interactive_slices_overtake_bulk_ones():
    """Interactive slices overtake bulk ones; each lane keeps its order of arrival."""
    lock, order = FairLock(), []
    await lock.acquire("interactive")
    tasks = await queued(lock, order, "b", "x", "y", "b", "z")
    lock.release()
    await asyncio.gather(*tasks)
    assert order == ["x", "y", "z", "b", "b"]


async def test_a_bulk_slice_is_overtaken_a_few_times_only():
    """A bulk slice gets its turn after a few interactive ones, however many keep arriving."""
    lock, order = FairLock(), []
    await lock.acquire("interactive")
    tasks = await queued(lock, order, "b", *map(str, range(40)))
    lock.release()
    await asyncio.gather(*tasks)
    assert 0 < order.index("b") <= OVERTAKING


async def test_whoever_is_cancelled_in_turn_lets_the_next_one_in():
    """A waiter cancelled before its turn, or just as it comes, lets the next one in."""
    lock, order = FairLock(), []
    await lock.acquire("interactive")
    waiting, coming, last = await queued(lock, order, "x", "y", "z")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    lock.release()
    coming.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(coming, last, return_exceptions=True)
    assert order == ["z"]
    await lock.acquire("bulk")


async def test_users_take_turns_by_what_it_costs():
    """Users take turns by cost, however many of one user's slices wait and in whichever lane."""
    lock, order = FairLock(), []

    async def pass_through(user, cost, priority):
        await lock.acquire(priority, user, cost)
        order.append(user)
        lock.release()

    await lock.acquire("interactive", "door", 1)
    many = [asyncio.create_task(pass_through("m", 10, "interactive")) for _ in range(6)]
    await asyncio.sleep(0)
    few = [asyncio.create_task(pass_through("f", 5, "bulk")) for _ in range(4)]
    await asyncio.sleep(0)
    lock.release()
    await asyncio.gather(*many, *few)
    assert "".join(order) == "mffmffmmmm"


async def test_nobody_is_remembered_who_is_owed_nothing():
    """Users are forgotten once nobody waits any more."""
    lock = FairLock()
    for user in range(5):
        await lock.acquire("bulk", user, 10)
        lock.release()
    assert (list(lock._users), lock._taken) == ([], False)
