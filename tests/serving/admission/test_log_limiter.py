"""Lines about bad peers and failed requests: few, whatever they do."""

import pytest

from sidecar.serving.admission.log_limiter import LogRateLimiter

from ...sizes import reachable


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_first_few_are_written(clock):
    """Of each user; one does not use up another's."""
    complaints = LogRateLimiter(60.0, clock)
    for uid in (1000, 1001):
        assert [complaints.take(uid) for _ in range(8)] == [0] * 5 + [None] * 3


def test_then_one_a_minute_which_counts_the_others(clock):
    """Nothing is forgotten between two lines."""
    complaints = LogRateLimiter(60.0, clock)
    written = []
    for _ in range(600):
        written.append(complaints.take(1000))
        clock.now += 1
    lines = [unlogged for unlogged in written if unlogged is not None]
    assert 14 <= len(lines) <= 15
    assert lines[-1] in {59, 60}


def test_quiet_gives_the_first_few_again(clock):
    """And no more than those, however long it was."""
    complaints = LogRateLimiter(60.0, clock)
    for _ in range(9):
        complaints.take(1000)
    clock.now += 86_400
    assert [complaints.take(1000) for _ in range(7)] == [4, 0, 0, 0, 0, None, None]


def test_memory_is_bounded(clock):
    """Whoever has been quiet longest is forgotten: of more than 256 users nothing is kept."""
    complaints = LogRateLimiter(60.0, clock)
    for uid in (0, 1):
        assert [complaints.take(uid) for _ in range(6)] == [0] * 5 + [None]
    for uid in range(2, 300):
        complaints.take(uid)
        assert complaints.take(1) is None, uid  # who is not quiet
    assert complaints.take(0) == 0  # as if never seen


def test_users_who_came_just_now_are_remembered(clock):
    """Also where there are more than can be."""
    complaints = LogRateLimiter(60.0, clock)
    for uid in range(1_000):
        for _ in range(6):
            complaints.take(uid)
    assert [complaints.take(uid) for uid in range(744, 1_000)] == [None] * 256
    size = reachable(complaints)
    for uid in range(1_000, 10_000):
        complaints.take(uid)
    assert reachable(complaints) <= size + 1_000


def test_a_line_more_takes_its_time(clock):
    """Not a moment sooner; a clock that has gone on for half of it has given half a line."""
    complaints = LogRateLimiter(60.0, clock)
    for _ in range(5):
        complaints.take(1000)
    for elapsed, written in ((30.0, None), (29.0, None), (2.0, 2), (58.0, None), (2.0, 1)):
        clock.now += elapsed
        assert complaints.take(1000) == written
