import pytest

from sidecar.serving.scheduler.job import Usage
from sidecar.serving.scheduler.limits import Excess, LaneUsage, QueueLimits

BOUNDS = QueueLimits(rows=40, tokens=400, bytes=4000, peer_share=0.5)
NEVER = float("inf")


def waiting(others=0, siblings=0, own=0):
    """Return the usage of a lane with this many rows of ten tokens and a hundred bytes each."""
    return LaneUsage(*(load(rows) for rows in (others + siblings + own, siblings + own, own)))


def load(rows):
    return Usage(rows, 10 * rows, 100 * rows)


@pytest.mark.parametrize(
    ("held", "more", "excess"),
    [
        (waiting(), load(15), Excess(0, 0)),
        (waiting(own=10), load(5), Excess(0, 0)),
        (waiting(own=10), load(10), Excess(5 / 10, 5 / 10)),
        (waiting(siblings=10), load(10), Excess(0, 0)),
        (waiting(siblings=10), load(12), Excess(NEVER, 2 / 5)),
        (waiting(others=20), load(7), Excess(0, 0)),
        (waiting(others=20), load(9), Excess(NEVER, 1.5 / 7.5)),
        (waiting(others=20, own=4), load(6), Excess(2.5 / 4, 2.5 / 11.5)),
    ],
)
def test_what_has_to_leave(held, more, excess):
    """The excess is a part of a process's own rows, or of all as far as these lower its share."""
    assert BOUNDS.excess(held, more) == excess


@pytest.mark.parametrize("more", [Usage(10, 1, 1), Usage(1, 100, 1), Usage(1, 1, 1000)])
def test_the_tightest_bound_decides(more):
    """The tightest of the limits on rows, tokens and bytes decides."""
    assert BOUNDS.excess(waiting(own=10), more) == Excess(0.5, 0.5)


def test_a_lone_process_has_its_share_of_each():
    """A lone process may have its share of each limit, and at least one."""
    assert BOUNDS.of_lone_process == Usage(15, 150, 1500)
    assert QueueLimits(rows=1, peer_share=0).of_lone_process.rows == 1
