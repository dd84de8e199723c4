"""Which connection is closed for a new one at the limit."""

from dataclasses import dataclass

import pytest

from sidecar.gateway.door import Door, is_of_this_host


@dataclass(eq=False)
class Caller:
    address: str | None = "127.0.0.1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def entered(door: Door, *callers: Caller) -> list[Caller]:
    for caller in callers:
        assert door.enter(caller) is None
    return list(callers)


def test_who_owes_its_request_longest_goes_first(clock: Clock) -> None:
    """Connections whose request is over a second late are closed before idle ones, oldest first."""
    door = Door(3, clock)
    idle, first, second = entered(door, Caller(), Caller(), Caller())
    door.mark_idle(idle)
    clock.now = 1.5
    assert door.enter(Caller()) is first
    assert door.enter(Caller()) is second


def test_who_has_just_come_is_spared_for_one_that_is_idle(clock: Clock) -> None:
    """The connection idle longest is closed before one that has only just connected."""
    door = Door(3, clock)
    first, second, _ = entered(door, Caller(), Caller(), Caller())
    door.mark_idle(second)
    clock.now = 0.5
    door.mark_idle(first)
    assert door.enter(Caller()) is second
    assert door.enter(Caller()) is first


def test_who_waits_for_an_answer_stays(clock: Clock) -> None:
    """If every connection waits for an answer, the newcomer is turned away and takes no place."""
    door = Door(2, clock)
    busy = entered(door, Caller(), Caller())
    for caller in busy:
        door.mark_busy(caller)
    clock.now = 100.0
    newcomer = Caller()
    assert door.enter(newcomer) is newcomer
    door.leave(busy[0])
    entered(door, Caller())


def test_who_left_may_be_heard_of_again(clock: Clock) -> None:
    """Events of a connection that was already removed neither restore it nor free a place twice."""
    door = Door(1, clock)
    (first,) = entered(door, Caller())
    second = Caller()
    assert door.enter(second) is first
    door.mark_idle(first)
    third = Caller()
    assert door.enter(third) is second
    door.leave(first)
    door.leave(first)
    assert door.enter(Caller()) is third


def test_another_host_has_half_of_the_places(clock: Clock) -> None:
    """A remote host gets half the places, and then displaces only its own connections."""
    door = Door(4, clock)
    mine, first, _ = entered(door, Caller(), Caller("192.0.2.1"), Caller("192.0.2.1"))
    assert door.enter(Caller("192.0.2.1")) is first
    entered(door, Caller("192.0.2.2"))
    assert door.enter(Caller()) is mine


def test_another_host_that_has_its_share_of_answers_under_way_waits(clock: Clock) -> None:
    """A remote host with half the places busy is turned away even if other places are free."""
    door = Door(4, clock)
    for caller in entered(door, Caller("192.0.2.1"), Caller("192.0.2.1")):
        door.mark_busy(caller)
    newcomer = Caller("192.0.2.1")
    assert door.enter(newcomer) is newcomer
    entered(door, Caller("::1"), Caller(None))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True),
        ("192.0.2.1", False), ("fe80::1%eth0", False),
    ],
)  # fmt: skip
def test_loopback_and_unix_are_of_this_host(address: str | None, expected: bool) -> None:
    """Loopback addresses and Unix sockets count as this host, and no other address does."""
    assert is_of_this_host(address) == expected
