"""Lines about bad peers and failed requests: few, whatever they do."""

import pytest

from sidecar.serving.complaints import Complaints


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
    complaints = Complaints(60.0, clock)
    for uid in (1000, 1001):
        assert [complaints.take(uid) for _ in range(8)] == [0] * 5 + [None] * 3


def test_then_one_a_minute_which_counts_the_others(clock):
    """Nothing is forgotten between two lines."""
    complaints = Complaints(60.0, clock)
    written = []
    for _ in range(600):
        written.append(complaints.take(1000))
        clock.now += 1
    lines = [unlogged for unlogged in written if unlogged is not None]
    assert 14 <= len(lines) <= 15
    assert lines[-1] in {59, 60}


def test_quiet_gives_the_first_few_again(clock):
    """And no more than those, however long it was."""
    complaints = Complaints(60.0, clock)
    for _ in range(9):
        complaints.take(1000)
    clock.now += 86_400
    assert [complaints.take(1000) for _ in range(7)] == [4, 0, 0, 0, 0, None, None]


def test_memory_is_bounded(clock):
    """Whoever has been quiet longest is forgotten."""
    complaints = Complaints(60.0, clock)
    for uid in range(10_000):
        complaints.take(uid)
    assert len(complaints._accounts) <= 256
