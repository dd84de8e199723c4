"""A row alone has all cores, unless that was slower of late."""

from sidecar.serving.scheduler.intra_op import IntraOpPolicy


def shares(lone, rows, seconds):
    """Whether each of some rows was shared; a shared one takes `seconds` instead of 1."""
    found = []
    for _ in range(rows):
        found.append(lone.may_run_parallel())
        if found[-1]:
            lone.record(seconds, expected=1.0)
    return found


def test_rows_are_shared_while_that_is_sooner():
    """All of them."""
    assert all(shares(IntraOpPolicy(), 100, seconds=0.6))


def test_a_busy_host_is_tried_ever_more_rarely():
    """After each failure twice as many rows are computed on one thread."""
    assert shares(IntraOpPolicy(), 18, seconds=3.0) == [
        True, False, True, *[False] * 2, True, *[False] * 4, True, *[False] * 7,
    ]  # fmt: skip
    # Every 1 025th in the end, and no more rarely: it may be free again.
    assert 100 < sum(shares(IntraOpPolicy(), 100_000, seconds=3.0)) < 120


def test_a_row_that_goes_well_halves_what_the_next_failure_costs():
    """A shared row that takes as long as it would have alone has gone well."""
    lone = IntraOpPolicy()
    shares(lone, 36, seconds=3.0)  # five of them were shared: the next failure costs 32 rows
    assert shares(lone, 1, seconds=1.0) == [True]
    assert shares(lone, 18, seconds=1.001) == [True, *[False] * 16, True]
    lone = IntraOpPolicy()
    shares(lone, 20, seconds=0.5)
    assert shares(lone, 3, seconds=3.0) == [True, False, True]


def test_a_host_that_is_free_again_is_used_again():
    """With the first row that goes well, and no failure is held against it for ever."""
    lone = IntraOpPolicy()
    shares(lone, 1_000, seconds=3.0)
    assert all(shares(lone, 3_000, seconds=0.6)[1_100:])
    shares(lone, 1, seconds=3.0)
    assert shares(lone, 2, seconds=0.6) == [False, True]
