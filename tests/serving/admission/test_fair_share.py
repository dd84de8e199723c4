"""Shares of what users and their processes hold in common."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.admission.fair_share import (
    Occupancy,
    OccupancyTracker,
    most_of_process,
    most_of_user,
    plenty,
)
from sidecar.serving.admission.peer import Peer

NOTHING = Occupancy(in_all=0, by_user=0, by_process=0)


def test_a_user_who_is_alone_leaves_a_quarter():
    """A lone user may have three quarters, and its only process half of that."""
    assert most_of_user(1_000, NOTHING) == 750
    assert most_of_process(1_000, 0.5, NOTHING) == 375


def test_own_holdings_do_not_lower_the_limit():
    """A user's own holdings do not reduce its limit: otherwise no share could be filled."""
    held = Occupancy(in_all=300, by_user=300, by_process=300)
    assert most_of_user(1_000, held) == 750
    assert most_of_process(1_000, 0.5, held) == 375


def test_what_other_users_hold_is_shared_no_more():
    """A user's limit is a part of what other users leave."""
    held = Occupancy(in_all=600, by_user=0, by_process=0)
    assert most_of_user(1_000, held) == 300


def test_a_process_has_a_part_of_what_its_siblings_leave():
    """A process's limit is a part of what its siblings leave of the user's share."""
    held = Occupancy(in_all=400, by_user=400, by_process=100)
    assert most_of_process(1_000, 0.5, held) == (750 - 300) // 2


def test_more_held_than_there_is_leaves_nothing():
    """Limits are zero if more is held than the total, as after a reload with a smaller one."""
    held = Occupancy(in_all=500, by_user=0, by_process=0)
    assert most_of_user(100, held) == most_of_process(100, 0.5, held) == 0


@given(
    st.floats(0.01, 1),
    st.lists(st.integers(0, 10**6), min_size=3, max_size=3),
    st.integers(0, 10**6),
)
def test_what_is_plenty_fits_whoever_holds_it(part, held, more):
    """Below `plenty` no share is exceeded, whoever holds what; it is within 2% of the maximum."""
    total, in_all = 10**6, sum(held)
    own, siblings, _ = held
    if in_all + more < plenty(part) * total:
        now = Occupancy(in_all=in_all, by_user=own + siblings, by_process=own)
        assert own + more <= most_of_process(total, part, now)
    assert 0.98 * 0.75 * part < plenty(part) < 0.75 * part


def test_what_is_held_is_counted_for_the_process_and_its_user():
    """Holdings are counted by process and by user, and those of zero are forgotten."""
    holdings, one, sibling, other = OccupancyTracker(), Peer(1, 7, 7), Peer(2, 7, 7), Peer(3, 8, 8)
    for peer, size in ((one, 10), (sibling, 20), (other, 40), (one, 5)):
        holdings.add(peer, size)
    assert holdings.of(one) == Occupancy(in_all=75, by_user=35, by_process=15)
    assert holdings.of(other) == Occupancy(in_all=75, by_user=40, by_process=40)
    assert holdings.of(Peer(4, 9, 9)) == Occupancy(in_all=75, by_user=0, by_process=0)
    holdings.remove(one, 15)
    assert holdings.by_process == {sibling: 20, other: 40}
    holdings.remove(other, 40)
    assert (holdings.in_all, holdings.by_user) == (20, {7: 20})
    assert holdings.of(other) == Occupancy(in_all=20, by_user=0, by_process=0)
    assert (dict(holdings.by_user), dict(holdings.by_process)) == ({7: 20}, {sibling: 20})


@given(st.lists(st.sampled_from("abcdefgh"), max_size=200))
def test_whoever_comes_next_finds_something(users):
    """A new user always finds something left, however greedily the others have taken theirs."""
    total, held = 10**6, dict.fromkeys(users, 0)
    for user in users:
        in_all = sum(held.values())
        most = most_of_user(total, Occupancy(in_all=in_all, by_user=held[user], by_process=0))
        held[user] = max(held[user], most)
    in_all = sum(held.values())
    assert most_of_user(total, Occupancy(in_all=in_all, by_user=0, by_process=0)) > 0
