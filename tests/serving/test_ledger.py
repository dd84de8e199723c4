"""What is held for peers: never more than the budget, and all of it comes back."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.ledger import Budget, Ledger

BUDGET = Budget(100, 60)
PEERS = st.sampled_from("abc")
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


def test_what_does_not_fit_is_not_held() -> None:
    """In all, or of one peer; and one that is refused holds nothing."""
    ledger = Ledger(BUDGET)
    assert ledger.hold("a", 61) is None
    assert ledger.hold("a", 60) is not None
    assert ledger.hold("a", 1) is None
    assert ledger.hold("b", 41) is None
    assert ledger.hold("b", 40) is not None
    assert ledger.to_map()["held_by_peer"] == {"a": 60, "b": 40}


def test_nothing_always_fits() -> None:
    """Also where a reload has left less than there is held."""
    ledger = Ledger(BUDGET)
    held = ledger.hold("a", 60)
    ledger.budget = Budget(10, 10)
    assert ledger.hold("a", 0) is not None
    assert held is not None
    held.release()
    assert ledger.to_map()["held_bytes"] == 0


def test_bytes_are_given_back_once() -> None:
    """Whoever releases again gives back nothing."""
    ledger = Ledger(BUDGET)
    one, other = ledger.hold("a", 30), ledger.hold("a", 30)
    assert one is not None
    assert other is not None
    one.release()
    one.release()
    assert ledger.to_map()["held_by_peer"] == {"a": 30}


def test_a_refusal_knows_how_long_bytes_are_held() -> None:
    """Connections are not waited for."""
    now = [0.0]
    ledger = Ledger(BUDGET, lambda: now[0])
    for lasting, seconds in [(True, 86_400.0), *[(False, 2.0)] * 300]:
        hold = ledger.hold("a", 1, lasting=lasting)
        assert hold is not None
        now[0] += seconds
        hold.release()
    assert ledger.seconds_until_room == pytest.approx(2.0, rel=0.01)


async def test_who_waits_gets_the_first_room_that_suits() -> None:
    """A large one is not in the way of a small one."""
    ledger = Ledger(BUDGET)
    held = ledger.hold("a", 60)
    assert held is not None
    large = asyncio.create_task(ledger.room("a", 50))
    small = asyncio.create_task(ledger.room("b", 30))
    assert (await small).size == 30
    assert not large.done()
    held.release()
    assert (await large).size == 50


@given(STEPS)
def test_however_it_ends_everything_is_released(steps: list[tuple[str, object, int]]) -> None:
    """Held, waited for, cancelled, in any order: bounds are kept, and in the end it is empty."""

    async def run() -> None:
        ledger = Ledger(BUDGET)
        holds, waiting = [], []
        for what, which, size in steps:
            if what == "hold" and (hold := ledger.hold(which, size)) is not None:
                holds.append(hold)
            elif what == "wait":
                waiting.append(asyncio.create_task(ledger.room(which, size)))
                await asyncio.sleep(0)
            elif what == "release" and holds:
                holds.pop(int(str(which)) % len(holds)).release()
            elif what == "cancel" and waiting:
                waiting[int(str(which)) % len(waiting)].cancel()
            check(ledger)
        for task in waiting:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        for hold in [*holds, *(each for each in done if not isinstance(each, BaseException))]:
            hold.release()
        await asyncio.sleep(0)
        assert ledger.to_map()["held_bytes"] == 0
        assert (ledger._held, list(ledger._waiting)) == ({}, [])

    asyncio.run(run())


def check(ledger: Ledger) -> None:
    held = ledger.to_map()["held_by_peer"]
    assert all(0 < size <= BUDGET.of_a_peer for size in held.values())
    assert sum(held.values()) == ledger.to_map()["held_bytes"] <= BUDGET.total
