"""Reservations never exceed the budget, and all of their bytes are given back."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.admission.memory_budget import MemoryBudget, Quota
from sidecar.serving.admission.peer import Peer

BUDGET = Quota(total=100, part=0.8, least=20)
A, B, C, D = (Peer(pid=1, uid=uid, gid=uid) for uid in range(4))
SIBLING = Peer(pid=2, uid=A.uid, gid=A.gid)
PEERS = st.sampled_from([A, SIBLING, B, C, D])
SIZES = st.integers(0, 70)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), PEERS, SIZES),
        st.tuples(st.just("wait"), PEERS, SIZES),
        st.tuples(st.just("release"), st.integers(0), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0), st.just(0)),
    ),
    max_size=40,
)


def held_by(budget: MemoryBudget) -> dict[str, int]:
    held: dict[str, int] = budget.to_map()["held_by_peer"]
    return held


def test_what_does_not_fit_is_not_held() -> None:
    """A process may have a part of its user's share, and a failed reservation holds nothing."""
    budget = MemoryBudget(BUDGET)
    assert budget.try_reserve(A, 61) is None
    assert budget.try_reserve(A, 60) is not None
    assert budget.try_reserve(A, 1) is None
    assert held_by(budget) == {str(A): 60}


def test_processes_of_a_user_share_what_is_the_users() -> None:
    """A second process of a user has a part of what the first left of the user's share."""
    budget = MemoryBudget(BUDGET)
    assert budget.try_reserve(A, 50)
    assert budget.try_reserve(SIBLING, 21) is None
    assert budget.try_reserve(SIBLING, 20)
    assert budget.to_map()["held_by_user"] == {"0": 70}


def test_the_least_is_not_every_process_s_of_a_user() -> None:
    """The guaranteed least is shared by a user's processes, not granted to each of them."""
    budget = MemoryBudget(BUDGET)
    assert budget.try_reserve(A, 60)
    assert budget.try_reserve(SIBLING, 16) is None
    assert budget.try_reserve(SIBLING, 15)
    assert budget.to_map()["held_by_user"] == {"0": 75}


def test_users_share_what_others_have_left() -> None:
    """Each user has a part of what the other users leave."""
    budget = MemoryBudget(BUDGET)
    assert budget.try_reserve(A, 60)
    assert budget.try_reserve(B, 25) is None
    assert budget.try_reserve(B, 24)
    assert budget.try_reserve(C, 10)


def test_the_least_is_everybodys_where_it_is_there() -> None:
    """Whoever holds nothing else may reserve the least, as long as the total allows it."""
    budget = MemoryBudget(BUDGET)
    assert budget.try_reserve(A, 60)
    assert budget.try_reserve(B, 20)
    assert budget.try_reserve(C, 20)
    assert budget.try_reserve(D, 1) is None


def test_an_operator_is_never_refused() -> None:
    """A reservation with `always` is never refused, but counts all the same."""
    budget = MemoryBudget(BUDGET)
    assert budget.try_reserve(A, 200, always=True)
    assert budget.to_map()["held_bytes"] == 200


def test_nothing_always_fits() -> None:
    """Zero bytes always fit, even if a reload has left a total below what is held."""
    budget = MemoryBudget(BUDGET)
    held = budget.try_reserve(A, 60)
    budget.quota = Quota(total=10)
    assert budget.try_reserve(A, 0) is not None
    assert held is not None
    held.release()
    assert budget.to_map()["held_bytes"] == 0


def test_bytes_are_given_back_once() -> None:
    """Releasing a reservation twice gives its bytes back once."""
    budget = MemoryBudget(BUDGET)
    one, other = budget.try_reserve(A, 30), budget.try_reserve(A, 30)
    assert one is not None
    assert other is not None
    one.release()
    one.release()
    assert held_by(budget) == {str(A): 30}


def test_one_hold_takes_over_another() -> None:
    """A reservation that takes over another gives the bytes of both back, once."""
    budget = MemoryBudget(BUDGET)
    one, other = budget.try_reserve(A, 30), budget.try_reserve(A, 20)
    assert one is not None
    assert other is not None
    one.take(other)
    other.release()
    assert held_by(budget) == {str(A): 50}
    one.release()
    assert held_by(budget) == {}


def test_a_refusal_knows_how_long_bytes_are_held() -> None:
    """The expected wait is the average holding time, without lasting reservations."""
    now = [0.0]
    budget = MemoryBudget(BUDGET, lambda: now[0])
    for lasting, seconds in [*[(False, 2.0)] * 300, (True, 86_400.0)]:
        reservation = budget.try_reserve(A, 1, lasting=lasting)
        assert reservation is not None
        now[0] += seconds
        reservation.release()
    assert budget.seconds_until_room == pytest.approx(2.0, rel=0.01)


def test_bytes_that_are_taken_over_are_held_since_they_were() -> None:
    """An empty reservation that takes over another counts from when the other was made."""
    now = [0.0]
    for empty, seconds in ((True, 2.0), (False, 7.0)):
        budget = MemoryBudget(BUDGET, lambda: now[0])
        for _ in range(300):
            one = budget.empty(A) if empty else budget.try_reserve(A, 1)
            now[0] += 5.0
            other = budget.try_reserve(A, 1)
            assert one is not None
            assert other is not None
            one.take(other)
            assert one.size == (1 if empty else 2)
            now[0] += 2.0
            one.release()
        assert budget.seconds_until_room == pytest.approx(seconds, rel=0.01)


def test_what_is_to_be_had_of_an_empty_budget() -> None:
    """The largest reservation in an empty budget follows from total, part and least."""
    for total, part, least, most in (
        (100, 0.8, 0, 60),  # a process's part of its user's three quarters
        (100, 1.0, 0, 75),
        (100, 0.5, 50, 50),  # what anybody may have
        (100, 0.5, 100, 100),  # as much as there is
        (40, 0.5, 50, 40),  # and no more than there is
    ):
        budget = MemoryBudget(Quota(total=total, part=part, least=least))
        assert budget.try_reserve(A, most + 1) is None
        assert budget.try_reserve(A, most) is not None, (total, part, least)


def test_a_refusal_names_what_a_process_may_have() -> None:
    """The status has the budget, a lone process's part of it, and what each peer and user holds."""
    budget = MemoryBudget(BUDGET)
    assert budget.try_reserve(A, 10)
    assert budget.try_reserve(SIBLING, 5)
    assert budget.try_reserve(B, 3)
    assert budget.to_map() == {
        "budget_bytes": 100,
        "budget_of_a_peer_bytes": 60,
        "held_bytes": 18,
        "held_by_peer": {str(A): 10, str(SIBLING): 5, str(B): 3},
        "held_by_user": {"0": 15, "1": 3},
    }


async def test_who_waits_and_is_cancelled_holds_nothing() -> None:
    """A waiter that is cancelled, before or just as there is room, holds nothing."""
    for in_time in (True, False):
        budget = MemoryBudget(BUDGET)
        held = budget.try_reserve(A, 60)
        waiting = asyncio.create_task(budget.reserve(A, 45))
        await asyncio.sleep(0)
        assert held is not None
        if in_time:
            waiting.cancel()
        held.release()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert held_by(budget) == {}
        assert budget.try_reserve(A, 60) is not None


async def test_who_waits_gets_the_first_room_that_suits() -> None:
    """A large waiting request does not block a small one that fits."""
    budget = MemoryBudget(BUDGET)
    held = budget.try_reserve(A, 60)
    assert held is not None
    large = asyncio.create_task(budget.reserve(A, 45))
    small = asyncio.create_task(budget.reserve(B, 20))
    assert (await small).size == 20
    assert not large.done()
    held.release()
    assert (await large).size == 45


async def test_all_who_wait_and_fit_are_served_at_once() -> None:
    """One release serves all waiters that now fit."""
    budget = MemoryBudget(BUDGET)
    held = [budget.try_reserve(A, 60), budget.try_reserve(B, 24)]
    waiting = [asyncio.create_task(budget.reserve(peer, 17)) for peer in (C, D, C)]
    await asyncio.sleep(0)
    assert held[0] is not None
    assert not any(task.done() for task in waiting)
    held[0].release()
    async with asyncio.timeout(20):
        assert [(await task).peer for task in waiting] == [C, D, C]


async def test_users_who_wait_take_turns() -> None:
    """Waiting users take turns, whoever came first and with however many requests."""
    budget = MemoryBudget(Quota(total=10, part=1.0, least=10))
    order: list[int] = []

    async def use(peer: Peer) -> None:
        reservation = await budget.reserve(peer, 10)
        order.append(peer.uid)
        await asyncio.sleep(0)
        reservation.release()

    held = budget.try_reserve(C, 10)
    assert held is not None
    async with asyncio.TaskGroup() as group:
        for peer in (A, A, A, SIBLING, B, B):
            group.create_task(use(peer))
        await asyncio.sleep(0)
        held.release()
    assert order == [0, 1, 0, 1, 0, 0]


@given(STEPS)
def test_however_it_ends_everything_is_released(steps: list[tuple[str, object, int]]) -> None:
    """In any sequence of reserving, waiting and cancelling, limits hold and all is released."""

    async def run() -> None:
        budget = MemoryBudget(BUDGET)
        reservations, waiting = [], []
        for what, which, size in steps:
            if what == "hold" and (made := budget.try_reserve(which, size)) is not None:
                reservations.append(made)
            elif what == "wait":
                waiting.append(asyncio.create_task(budget.reserve(which, size)))
                await asyncio.sleep(0)
            elif what == "release" and reservations:
                reservations.pop(int(str(which)) % len(reservations)).release()
            elif what == "cancel" and waiting:
                waiting[int(str(which)) % len(waiting)].cancel()
            check(budget)
        for task in waiting:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        granted = [each for each in done if not isinstance(each, BaseException)]
        for reservation in [*reservations, *granted]:
            reservation.release()
        await asyncio.sleep(0)
        assert budget.to_map()["held_bytes"] == 0
        assert (held_by(budget), budget._waiting, budget._last_turn) == ({}, [], {})

    asyncio.run(run())


def check(budget: MemoryBudget) -> None:
    held = budget.to_map()
    assert all(0 < size <= 60 for size in held["held_by_peer"].values())
    assert all(0 < size <= 75 for size in held["held_by_user"].values())
    for whose in ("held_by_peer", "held_by_user"):
        assert sum(held[whose].values()) == held["held_bytes"] <= BUDGET.total
