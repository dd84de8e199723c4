"""A lone row runs on all cores, unless that was recently slower."""

from sidecar.serving.scheduler.intra_op import IntraOpPolicy


def shares(policy, rows, seconds):
    """Return whether each row was shared; a shared one takes `seconds` instead of 1."""
    shared = []
    for _ in range(rows):
        shared.append(policy.may_run_parallel())
        if shared[-1]:
            policy.record(seconds, expected=1.0)
    return shared


def test_rows_are_shared_while_that_is_sooner():
    """All rows are shared while sharing is faster."""
    assert all(shares(IntraOpPolicy(), 100, seconds=0.6))


def test_a_busy_host_is_tried_ever_more_rarely():
    """After each failure, twice as many rows run on a single thread, up to a limit."""
    assert shares(IntraOpPolicy(), 18, seconds=3.0) == [
        True, False, True, *[False] * 2, True, *[False] * 4, True, *[False] * 7,
    ]  # fmt: skip
    # In the end every 1,025th row is shared, and no fewer: the host may be free again.
    assert 100 < sum(shares(IntraOpPolicy(), 100_000, seconds=3.0)) < 120


def test_a_row_that_goes_well_halves_what_the_next_failure_costs():
    """A shared row no slower than on one thread halves the penalty of the next failure."""
    policy = IntraOpPolicy()
    shares(policy, 36, seconds=3.0)  # five were shared: the next failure costs 32 rows
    assert shares(policy, 1, seconds=1.0) == [True]
    assert shares(policy, 18, seconds=1.001) == [True, *[False] * 16, True]
    policy = IntraOpPolicy()
    shares(policy, 20, seconds=0.5)
    assert shares(policy, 3, seconds=3.0) == [True, False, True]


def test_a_host_that_is_free_again_is_used_again():
    """Once shared rows are fast again, all are shared and the past penalty is forgotten."""
    policy = IntraOpPolicy()
    shares(policy, 1_000, seconds=3.0)
    assert all(shares(policy, 3_000, seconds=0.6)[1_100:])
    shares(policy, 1, seconds=3.0)
    assert shares(policy, 2, seconds=0.6) == [False, True]
