"""Log lines about misbehaving peers and failed requests are few, whatever they do."""

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
    """The first five lines of each user are written, regardless of other users."""
    limiter = LogRateLimiter(60.0, clock)
    for uid in (1000, 1001):
        assert [limiter.take(uid) for _ in range(8)] == [0] * 5 + [None] * 3


def test_then_one_a_minute_which_counts_the_others(clock):
    """After the burst, one line a minute is written, with the number of suppressed ones."""
    limiter = LogRateLimiter(60.0, clock)
    written = []
    for _ in range(600):
        written.append(limiter.take(1000))
        clock.now += 1
    lines = [unlogged for unlogged in written if unlogged is not None]
    assert 14 <= len(lines) <= 15
    assert lines[-1] in {59, 60}


def test_quiet_gives_the_first_few_again(clock):
    """A quiet time restores the burst, but no more than that, however long it was."""
    limiter = LogRateLimiter(60.0, clock)
    for _ in range(9):
        limiter.take(1000)
    clock.now += 86_400
    assert [limiter.take(1000) for _ in range(7)] == [4, 0, 0, 0, 0, None, None]


def test_memory_is_bounded(clock):
    """Only 256 users are remembered, and the one that was quiet longest is forgotten first."""
    limiter = LogRateLimiter(60.0, clock)
    for uid in (0, 1):
        assert [limiter.take(uid) for _ in range(6)] == [0] * 5 + [None]
    for uid in range(2, 300):
        limiter.take(uid)
        assert limiter.take(1) is None, uid  # not quiet
    assert limiter.take(0) == 0  # as if never seen


def test_users_who_came_just_now_are_remembered(clock):
    """The most recent 256 users are remembered in constant memory, however many more there are."""
    limiter = LogRateLimiter(60.0, clock)
    for uid in range(1_000):
        for _ in range(6):
            limiter.take(uid)
    assert [limiter.take(uid) for uid in range(744, 1_000)] == [None] * 256
    size = reachable(limiter)
    for uid in range(1_000, 10_000):
        limiter.take(uid)
    assert reachable(limiter) <= size + 1_000


def test_a_line_more_takes_its_time(clock):
    """A further line takes the full interval, and partial intervals add up."""
    limiter = LogRateLimiter(60.0, clock)
    for _ in range(5):
        limiter.take(1000)
    for elapsed, written in ((30.0, None), (29.0, None), (2.0, 2), (58.0, None), (2.0, 1)):
        clock.now += elapsed
        assert limiter.take(1000) == written
