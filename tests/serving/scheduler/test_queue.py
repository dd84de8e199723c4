from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire.errors import DeadlineExceeded, Overloaded, TooLarge
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.scheduler.queue import BULK_WAITS, MAX_COST, MAX_LEAVING, MAX_ROWS, Queue

from ..jobs import job


def queue(*jobs, threads=1, **bounds):
    made = Queue(QueueLimits(**{"peer_share": 1, **bounds}), threads)
    for each in jobs:
        made.push(each)
    return made


def taken(q, count=1000, now=0.0):
    """Take rows, and finish each at once."""
    rows = []
    while len(rows) < count and (hand := q.take(now)) is not None:
        running, entry = hand
        running.active -= 1
        rows.append((running.batch, entry))
    return rows


def entries(rows):
    return [(entry.job, entry.index) for _, entry in rows]


def batch_sizes(rows):
    return [batch.rows for batch in dict.fromkeys(batch for batch, _ in rows)]


def test_an_empty_queue_has_no_row():
    """An empty queue hands out no row."""
    assert queue().take(0.0) is None


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_a_queue_is_empty_once_all_rows_are_taken(lane):
    """A queue is empty only when the rows of the current batch are taken too, in either lane."""
    q = queue()
    assert q.is_empty
    q.push(job(1, 1, priority=lane))
    for _ in range(2):
        assert not q.is_empty
        taken(q, 1)
    assert q.is_empty


def test_a_batch_gathers_the_rows_of_several_requests():
    """Rows that wait together are cut into one batch, each peer's in order of arrival."""
    first, second = job(1, 1), job(1)
    rows = taken(queue(first, second))
    assert entries(rows) == [(first, 0), (first, 1), (second, 0)]
    assert batch_sizes(rows) == [3]


def test_a_batch_has_sixteen_rows_at_most():
    """A request of many texts is split into batches of at most sixteen rows."""
    assert batch_sizes(taken(queue(job(*[1] * 37)))) == [16, 16, 5]


def test_a_batch_costs_no_more_than_its_budget():
    """A batch stays within its cost budget, unless a single row exceeds it and goes alone."""
    third = MAX_COST // 3
    costs = [third, third, third, third, 2 * MAX_COST, third]
    assert batch_sizes(taken(queue(job(*costs)))) == [3, 1, 1, 1]


def test_a_batch_is_cut_as_late_as_possible():
    """Rows that arrive while a batch is computed join the next one, whichever peer sent them."""
    q = queue(job(1, 1, peer="a"))
    first = taken(q, 1)
    q.push(job(1, peer="b"))
    q.push(job(1, peer="a"))
    assert batch_sizes(first + taken(q)) == [2, 2]


def test_a_batch_is_of_one_model():
    """A batch has rows of a single model, and models take turns as their peers do."""
    q = queue(*(job(1, 1, model=model, peer=model) for model in "ab"))
    assert [batch.model for batch, _ in taken(q)] == ["a", "a", "b", "b"]


def test_a_batch_knows_its_tokens_its_peers_and_its_longest_wait():
    """A batch counts its tokens and peers, and its wait is that of its oldest row."""
    q = queue(job(1, arrived=1.0, peer="a"), job(1, 1, arrived=3.0, peer="b"))
    batch, _ = taken(q, now=4.5)[0]
    assert (batch.tokens, batch.peers, batch.longest_wait, batch.id) == (9, 2, 3.5, 1)


def test_a_request_of_many_texts_does_not_hold_the_line():
    """A peer with one text waits for one of another peer's rows, not for a thousand."""
    q = queue(job(*[10_000] * 1000, peer="indexer"))
    taken(q, 10)
    q.push(one := job(10_000, peer="searcher"))
    assert (one, 0) in entries(taken(q, 2))


def test_interactive_rows_go_before_the_rest_of_a_bulk_batch():
    """Interactive rows interrupt a bulk batch, which is resumed afterwards."""
    bulk, search = job(*[9] * 16, priority="bulk"), job(5, 5)
    q = queue(bulk)
    rows = taken(q, 4)
    q.push(search)
    rows += taken(q)
    assert entries(rows[3:7]) == [(bulk, 3), (search, 0), (search, 1), (bulk, 4)]
    assert batch_sizes(rows) == [16, 2]


def test_who_cuts_has_the_queue_for_a_few_rows_only():
    """At most `MAX_LEAVING` equal or expired rows leave per call; the next call continues."""
    assert MAX_LEAVING <= 100
    equal = [job(1, texts=[1]) for _ in range(MAX_ROWS + 2 * MAX_LEAVING)]
    late = [job(1, deadline=0.5) for _ in range(MAX_LEAVING)]
    q = queue(*equal, *late, last := job(1))
    _, first = q.take(0.0)
    rows = []
    while (hand := q.take(1.0)) is None:
        rows.append(q.loads["interactive"][None].rows)
    assert rows == [2 * MAX_LEAVING + 1, MAX_LEAVING + 1, 1]
    assert (first.job, hand[1].job) == (equal[0], last)


def test_bulk_rows_go_once_what_went_ahead_has_cost_nine_times_as_much():
    """Bulk gets a tenth of the time, whatever the interactive load."""
    q = queue(job(*[10] * 40), job(*[20] * 3, priority="bulk", peer="b"))
    order = "".join(entry.job.priority[0] for _, entry in taken(q, 42))
    assert BULK_WAITS == 9
    assert order == "i" * 18 + "b" + "i" * 18 + "b" + "i" * 4


def lanes(rows):
    return "".join(entry.job.priority[0] for _, entry in rows)


def test_a_cheap_bulk_row_makes_up_for_its_own_part_alone():
    """A cheap bulk row pays off only its part of what bulk is owed; later rows get the rest."""
    q = queue(job(*[10] * 100), dear := job(100, priority="bulk"), job(*[10] * 9, priority="bulk"))
    assert lanes(taken(q, 50)) == "i" * 50
    q.drop(dear)
    # 500 are owed, and a row of 10 makes up for 90.
    assert lanes(taken(q, 21)) == "b" * 5 + "i" * 4 + "b" + "i" * 9 + "b" + "i"


def test_bulk_that_nothing_went_ahead_of_owes_nothing():
    """What bulk got while no interactive rows waited is not held against it."""
    q = queue(job(*[10] * 40, priority="bulk"))
    assert lanes(taken(q, 30)) == "b" * 30
    q.push(job(*[10] * 40))
    assert lanes(taken(q, 20)) == ("i" * 9 + "b") * 2


def test_without_bulk_nothing_is_owed():
    """Bulk rows do not go first for interactive rows computed before they arrived."""
    q = queue(job(*[10] * 40))
    taken(q, 30)
    q.push(job(1, priority="bulk"))
    assert [entry.job.priority for _, entry in taken(q, 2)] == ["interactive", "bulk"]


def test_a_dropped_job_leaves_at_once():
    """Dropping a job removes its rows from the queue and the current batch, and makes room."""
    gone, stays = job(*[1] * 18), job(1, 1)
    q = queue(gone, stays, rows=27)
    taken(q, 1)
    assert q.drop(gone).id == 1
    q.push(job(*[1] * 18))
    assert entries(taken(q, 2)) == [(stays, 0), (stays, 1)]


def test_a_batch_that_still_runs_is_not_ended_by_a_drop():
    """A batch with a running row is not finished by a drop, but by that row."""
    gone = job(1, 1)
    q = queue(gone)
    running, _ = q.take(0.0)
    assert q.drop(gone) is None
    running.active -= 1
    assert running.is_finished


def test_dropping_what_has_left_already_does_nothing():
    """Dropping a job without waiting rows, any number of times, does nothing."""
    q = queue(done := job(1))
    taken(q)
    assert q.drop(done) is None
    assert q.drop(done) is None


@pytest.mark.parametrize("bounds", [{"rows": 14}, {"tokens": 42}, {"bytes": 896}])
def test_a_job_that_does_not_fit_now_is_refused_whole(bounds):
    """A job that exceeds the free rows, tokens or bytes is rejected as a whole and retryable."""
    q = queue(job(*[1] * 8), **bounds)
    with pytest.raises(Overloaded, match=r"8 texts \(24 tokens\) are waiting"):
        q.push(job(1, 1, 1))
    assert q.loads["interactive"][None].rows == 8


@pytest.mark.parametrize("bounds", [{"rows": 14}, {"tokens": 42}, {"bytes": 896}])
def test_a_job_that_never_fits_is_too_large(bounds):
    """A job that could never fit is rejected as too large, since retrying would not help."""
    with pytest.raises(TooLarge, match=r"one process may queue .* split the request"):
        queue(**bounds).push(job(*[1] * 11))


def test_one_peer_may_not_fill_a_lane():
    """A peer may use only its share of a lane, and a job beyond that share is too large."""
    q = queue(job(*[1] * 4, peer="a"), rows=16, peer_share=0.5)
    with pytest.raises(Overloaded, match=r"4 \(12\) from your process"):
        q.push(job(1, 1, 1, peer="a"))
    q.push(job(*[1] * 4, peer="b"))
    with pytest.raises(TooLarge):
        q.push(job(*[1] * 7, peer="c"))


def test_what_a_process_has_waiting_is_its_users_too():
    """A process's waiting rows count both as its own and as its user's."""
    q = queue(job(*[1] * 6, peer="a", user="u"), rows=16, peer_share=0.5)
    with pytest.raises(Overloaded, match=r"6 \(18\) from your user, 6 \(18\) from your process"):
        q.push(job(1, peer="a", user="u"))


def test_many_processes_of_a_user_leave_room_for_another_user():
    """At least a quarter of a lane is left for other users, however many processes a user has."""
    q = queue(rows=40, peer_share=0.5)
    for process in range(100):
        with suppress(Overloaded):
            q.push(job(*[1] * 2, peer=process, user="crowd"))
    with pytest.raises(Overloaded, match=r"from your user, 0 \(0\) from your process"):
        q.push(job(*[1] * 2, peer="late", user="crowd"))
    q.push(job(*[1] * 4, peer="other", user="other"))


def test_a_user_may_have_part_of_what_the_others_leave():
    """With 15 of 40 rows taken, another user may have 18 of the rest, and a process half of it."""
    q = queue(job(*[1] * 15, peer="a", user="a"), rows=40, peer_share=0.5)
    with pytest.raises(Overloaded):
        q.push(job(*[1] * 10, peer="b", user="b"))
    q.push(job(*[1] * 9, peer="b", user="b"))
    with pytest.raises(Overloaded):
        q.push(job(*[1] * 5, peer="c", user="b"))
    q.push(job(*[1] * 4, peer="c", user="b"))


def test_of_a_tiny_lane_a_process_has_one_row():
    """A process may have one row in a lane whose limit rounds its share down to none."""
    q = queue(rows=1, peer_share=0.5)
    q.push(job(1))
    with pytest.raises(Overloaded, match="retry in 1 ms"):
        q.push(job(1))


def test_a_full_lane_does_not_fill_the_other():
    """Interactive requests are accepted however much bulk waits."""
    q = queue(job(*[1] * 10, priority="bulk"), rows=14)
    with pytest.raises(Overloaded):
        q.push(job(1, priority="bulk"))
    q.push(job(1))
    rows = {lane: load.rows for lane, peers in q.loads.items() for load in peers.values()}
    assert rows == {"interactive": 1, "bulk": 10}


def test_retry_after_is_when_enough_rows_will_have_left():
    """The retry time is when enough rows will have left: 150 ms for six of 50 ms on two threads."""
    q = queue(job(*[50_000] * 8), rows=14, threads=2)
    with pytest.raises(Overloaded) as refused:
        q.push(job(*[50_000] * 8))
    assert refused.value.retry_after_ms == 150


def test_retry_after_counts_what_goes_ahead():
    """The retry time includes other peers' turns and, for bulk, the interactive rows."""
    q = queue(
        job(*[10_000] * 10, peer="a", priority="bulk"),
        job(*[10_000] * 4, peer="b", priority="bulk"),
        job(*[10_000] * 6),
        rows=40,
        peer_share=0.5,
    )
    with pytest.raises(Overloaded) as refused:
        q.push(job(*[1] * 5, peer="a", priority="bulk"))
    assert refused.value.retry_after_ms == round(2 * 10 * 10 / 6) + 60  # a sixth of each


def test_a_process_waits_for_its_own_rows_where_that_is_sooner():
    """The retry time is when enough of a process's own rows will have left, if that is sooner."""
    q = queue(
        job(*[1_000] * 10, peer="a", user="u"),
        job(*[100_000] * 10, peer="b", user="v"),
        rows=40,
        peer_share=0.5,
    )
    with pytest.raises(Overloaded) as refused:
        q.push(job(*[1] * 5, peer="a", user="u"))
    assert refused.value.retry_after_ms == 2 * 4


def test_a_user_waits_for_what_others_have_waiting():
    """A user without waiting rows is told to retry when enough of the others' will have left."""
    q = queue(job(*[10_000] * 30, peer="a", user="a"), rows=40)
    with pytest.raises(Overloaded) as refused:
        q.push(job(*[1] * 15, peer="b", user="b"))
    # Three quarters of 20 are 15, of 10 they are 7: ten rows have to leave.
    assert refused.value.retry_after_ms == pytest.approx(100, abs=10)


@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.sampled_from("abc"), st.integers(1, 12)), max_size=12
    ),
    st.sampled_from([0.3, 0.5, 1.0]),
    st.integers(1, 12),
)
def test_the_time_to_retry_is_true(before, share, rows):
    """A rejected request fits after its retry time, give or take a row per waiting process."""
    q, request = queue(rows=60, peer_share=share), job(*[1000] * rows, peer="ua", user="u")
    for user, peer, count in before:
        with suppress(Overloaded):
            q.push(job(*[1000] * count, peer=user + peer, user=user))
    try:
        q.push(request)
    except Overloaded as refused:
        waiting = len(q.loads["interactive"])
        taken(q, refused.retry_after_ms + waiting)
        q.push(request)


def test_bulk_counts_on_its_share():
    """Ten seconds of interactive work delay a bulk row by at most nine times its own cost."""
    q = queue(job(*[100_000] * 100))
    with pytest.raises(DeadlineExceeded, match=r"estimated wait of 0\.5 s"):
        q.push(job(50_000, priority="bulk", deadline=0.4))
    q.push(job(50_000, priority="bulk", deadline=0.6))


def test_what_cannot_be_done_in_time_is_refused():
    """A job is rejected if its peer's backlog, others' turns and the threads make it too late."""
    q = queue(job(*[10_000] * 8, peer="a"), job(10_000, peer="b"), threads=2)
    q.push(job(10_000, peer="c", deadline=0.016))
    with pytest.raises(DeadlineExceeded, match=r"wait of 0\.1 s exceeds the 0\.09 s"):
        q.push(job(*[10_000] * 10, peer="a", deadline=0.09))
    q.push(job(*[10_000] * 10, peer="a", deadline=0.11))


def test_the_last_quarter_of_the_time_is_not_counted_on():
    """A request that would start in the last quarter of its time is rejected, however small."""
    q = queue(job(*[10_000] * 9, peer="a"))
    q.refuse_if_late("interactive", "a", 0.12)
    q.refuse_if_late("interactive", "b", 0.01)
    q.refuse_if_late("bulk", "a", 0.01)
    with pytest.raises(DeadlineExceeded):
        q.refuse_if_late("interactive", "a", 0.119)
    with pytest.raises(DeadlineExceeded):
        q.push(job(1, peer="a", deadline=0.119))


def test_what_is_too_late_depends_on_the_user():
    """If two users' processes have the same name, only the requesting user's backlog counts."""
    q = queue(job(*[10_000] * 9, peer="a", user="u"))
    q.refuse_if_late("interactive", "a", 0.02, "v")
    with pytest.raises(DeadlineExceeded):
        q.refuse_if_late("interactive", "a", 0.02, "u")
    q.push(job(10_000, peer="a", user="v", deadline=0.03))
    with pytest.raises(DeadlineExceeded):
        q.push(job(10_000, peer="b", user="u", deadline=0.015))


@pytest.mark.parametrize("user", [None, "u"])
def test_a_process_s_own_rows_are_counted_once(user):
    """A process's own backlog is counted once in its estimated wait, whoever its user is."""
    q = queue(job(*[10_000] * 9, peer="a", user=user))
    with pytest.raises(DeadlineExceeded, match=r"wait of 0\.09 s exceeds the 0\.0825 s"):
        q.push(job(10_000, peer="a", user=user, deadline=0.11))
    q.push(job(10_000, peer="a", user=user, deadline=0.121))


def test_what_would_end_too_late_is_not_begun():
    """A job with a row that would finish too late is dropped whole, without delaying others."""
    late, stays = job(1000, 1, 1000, deadline=2.0), job(1000)
    q = queue(late, stays)
    rows = taken(q, now=1.9995)
    assert entries(rows) == [(stays, 0)]


def test_what_would_end_in_the_last_moment_is_begun():
    """A row that would finish exactly at its deadline is still computed."""
    q = queue(just := job(500_000, deadline=2.0))
    assert entries(taken(q, now=1.5)) == [(just, 0)]


def take(q):
    """Take a row and leave it running."""
    hand = q.take(0.0)
    return hand and hand[1]


def first(one):
    return next(one.entries)


def test_a_row_that_another_computes_costs_its_peer_nothing():
    """A row that is already running for another peer leaves free of charge in its turn."""
    q = queue(running := job(50, texts=[1], peer="a"))
    assert take(q) == first(running)
    q.push(job(50, 5, 5, texts=[1, 2, 3], peer="b"))
    q.push(job(5, 5, 5, peer="c"))
    assert [entry.job.peer for _, entry in taken(q)] == [*"bcbcc"]


def test_a_row_of_a_batch_that_another_computes_by_now_is_passed_over():
    """A batch skips a row that has started in the other lane since the batch was cut."""
    q = queue(bulk := job(1, 1, 1, texts=[5, 1, 6], priority="bulk"))
    assert take(q) == first(bulk)
    q.push(search := job(1, texts=[1]))
    assert take(q) == first(search)
    assert take(q).index == 2
    assert q.is_empty


def test_a_batch_ends_with_a_row_that_another_computes():
    """A batch whose last row runs elsewhere is reported once, by the next call to `completed`."""
    q = queue(bulk := job(1, 1, texts=[5, 1], priority="bulk"))
    running, _ = q.take(0.0)
    q.push(search := job(1, texts=[1]))
    take(q)
    running.active -= 1
    assert take(q) is None
    equal = list(bulk.entries)[1]
    assert q.completed(first(bulk).key, []) == [running.batch]
    assert q.completed(first(search).key, [equal]) == []


def test_what_has_landed_leaves_the_batches_that_were_cut():
    """A completed row leaves the batches that were cut with it, and finishes one it was last in."""
    q = queue(bulk := job(1, 1, 1, texts=[5, 1, 2], priority="bulk"))
    running, _ = q.take(0.0)
    q.push(search := job(1, 1, texts=[1, 2]))
    assert [take(q), take(q)] == list(search.entries)
    running.active -= 1
    _, one, two = bulk.entries
    assert q.completed(one.key, [one]) == []
    assert q.completed(two.key, [two]) == [running.batch]
    assert take(q) is None


def test_a_batch_of_which_a_row_runs_does_not_end_as_another_lands():
    """A batch with a running row is not finished by another of its rows completing elsewhere."""
    q = queue(bulk := job(1, 1, texts=[5, 1], priority="bulk"))
    assert take(q) == first(bulk)
    q.push(search := job(1, texts=[1]))
    assert take(q) == first(search)
    assert q.completed(first(search).key, [list(bulk.entries)[1]]) == []


def test_a_row_counts_as_computed_until_all_have_been_told():
    """A row counts as running until it is delivered to all; after that it is computed again."""
    q = queue(done := job(1, texts=[1]))
    take(q)
    key = first(done).key
    assert q.completed(key, [], whole=False) == []
    q.push(job(1, texts=[1]))
    assert take(q) is None
    assert q.completed(key, [], whole=True) == []
    q.push(again := job(1, texts=[1]))
    assert take(q) == first(again)


def test_an_equal_row_may_be_computed_once_the_first_has_landed():
    """An equal row is computed only after the first has completed, even with an idle thread."""
    q = queue(one := job(1, texts=[1], peer="a"))
    take(q)
    q.push(other := job(1, 1, texts=[1, 2], peer="b"))
    assert take(q) == list(other.entries)[1]
    assert q.completed(first(one).key, []) == []
    q.push(third := job(1, texts=[1], peer="c"))
    assert take(q) == first(third)


def test_a_queue_without_rows_remembers_nobody():
    """A queue whose rows were taken, dropped, expired or shared remembers no user."""
    q = queue(
        job(5, 5, texts=[1, 2], user="u", peer="a"),
        job(5, user="v", peer="b", model="b", priority="bulk"),
        gone := job(5, 5, user="w", peer="c"),
        job(5, user="x", peer="d", deadline=1.0, priority="bulk"),
        job(5, texts=[1], user="y", peer="e"),
    )
    assert not q.is_idle
    q.drop(gone)
    rows = taken(q, now=2.0)
    assert len(rows) == 3
    assert not q.is_idle  # not yet reported as completed
    for _, entry in rows:
        q.completed(entry.key, [])
    assert take(q) is None
    assert q.is_idle
