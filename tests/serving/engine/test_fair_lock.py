import asyncio

from sidecar.serving.engine.fair_lock import OVERTAKING, FairLock


async def queued(turnstile, order, *names):
    """Tasks that wait for their turn, by name; "b" is bulk."""

    async def pass_through(name):
        await turnstile.enter("bulk" if name == "b" else "interactive")
        order.append(name)
        turnstile.leave()

    tasks = [asyncio.create_task(pass_through(name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_interactive_slices_overtake_bulk_ones():
    """Each in its lane in order of arrival."""
    turnstile, order = FairLock(), []
    await turnstile.enter("interactive")
    tasks = await queued(turnstile, order, "b", "x", "y", "b", "z")
    turnstile.leave()
    await asyncio.gather(*tasks)
    assert order == ["x", "y", "z", "b", "b"]


async def test_a_bulk_slice_is_overtaken_a_few_times_only():
    """After that it is its turn, however many interactive ones keep coming."""
    turnstile, order = FairLock(), []
    await turnstile.enter("interactive")
    tasks = await queued(turnstile, order, "b", *map(str, range(40)))
    turnstile.leave()
    await asyncio.gather(*tasks)
    assert 0 < order.index("b") <= OVERTAKING


async def test_whoever_is_cancelled_in_turn_lets_the_next_one_in():
    """Cancelled before its turn, or in the moment in which it comes."""
    turnstile, order = FairLock(), []
    await turnstile.enter("interactive")
    waiting, coming, last = await queued(turnstile, order, "x", "y", "z")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    turnstile.leave()
    coming.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(coming, last, return_exceptions=True)
    assert order == ["z"]
    await turnstile.enter("bulk")


async def test_users_take_turns_by_what_it_costs():
    """However many of one user wait, and in which lane, another is next as soon as it is fair."""
    turnstile, order = FairLock(), []

    async def pass_through(user, cost, priority):
        await turnstile.enter(priority, user, cost)
        order.append(user)
        turnstile.leave()

    await turnstile.enter("interactive", "door", 1)
    many = [asyncio.create_task(pass_through("m", 10, "interactive")) for _ in range(6)]
    await asyncio.sleep(0)
    few = [asyncio.create_task(pass_through("f", 5, "bulk")) for _ in range(4)]
    await asyncio.sleep(0)
    turnstile.leave()
    await asyncio.gather(*many, *few)
    assert "".join(order) == "mffmffmmmm"


async def test_nobody_is_remembered_who_is_owed_nothing():
    """Once all have left, as with users who are not seen again."""
    turnstile = FairLock()
    for user in range(5):
        await turnstile.enter("bulk", user, 10)
        turnstile.leave()
    assert (list(turnstile._users), turnstile._taken) == ([], False)
