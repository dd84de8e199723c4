import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire.errors import Overloaded, TooLarge
from sidecar.models.rows import Row
from sidecar.serving.batch import MAX_ROWS, Job, Pace, Queue
from sidecar.serving.vectors import Finish

ROW = Row(np.zeros(3, np.int64), np.zeros(3, np.int64), truncated=False)
MODELS = ("a", "b")


def job(rows, model="a", arrived=0.0):
    return Job(model, (ROW,) * rows, Finish(8, normalize=True), arrived)


def queue(max_rows=64, lanes=1):
    return Queue(max_rows, Pace(lanes))


def cut_sizes(q):
    sizes = []
    while batch := q.cut(0.0):
        sizes.append(batch.rows)
    return sizes


def test_an_empty_queue_has_no_batch():
    """Nothing waits, nothing is cut."""
    assert queue().cut(0.0) is None


def test_a_batch_gathers_the_rows_of_several_requests():
    """What waits together is cut together, in order of arrival."""
    q, first, second = queue(), job(2), job(1)
    q.push(first)
    q.push(second)
    entries = q.cut(0.0).entries
    assert [(e.job, e.index) for e in entries] == [(first, 0), (first, 1), (second, 0)]


def test_a_batch_has_sixteen_rows_at_most():
    """A request of many texts is split over batches."""
    q = queue()
    q.push(job(37))
    assert cut_sizes(q) == [16, 16, 5]


def test_a_batch_is_of_the_heads_model_alone():
    """Rows of other models stay, and keep their place."""
    q = queue()
    for model in "abab":
        q.push(job(1, model))
    assert [q.cut(0.0).model for _ in range(2)] == ["a", "b"]
    assert q.cut(0.0) is None


def test_a_batch_knows_its_tokens_and_its_longest_wait():
    """The wait is that of the row that came first."""
    q = queue()
    q.push(job(1, arrived=1.0))
    q.push(job(2, arrived=3.0))
    batch = q.cut(4.5)
    assert (batch.tokens, batch.longest_wait, batch.id) == (9, 3.5, 1)


def test_a_dropped_job_leaves_at_once():
    """Its rows are not cut any more, and make room."""
    q, gone, stays = queue(max_rows=20), job(18), job(2)
    q.push(gone)
    q.push(stays)
    q.cut(0.0)
    q.drop(gone)
    assert len(q) == 2
    assert [e.job for e in q.cut(0.0).entries] == [stays, stays]


def test_dropping_what_has_left_already_does_nothing():
    """A job without waiting rows may be dropped, any number of times."""
    q, done = queue(), job(1)
    q.push(done)
    q.cut(0.0)
    q.drop(done)
    q.drop(done)
    assert len(q) == 0


def test_a_job_that_does_not_fit_now_is_refused_whole():
    """Nothing of it was accepted, and it may come back."""
    q = queue(max_rows=10)
    q.push(job(8))
    with pytest.raises(Overloaded):
        q.push(job(3))
    assert len(q) == 8


def test_a_job_that_never_fits_is_too_large():
    """Coming back would not help, and it is told so."""
    with pytest.raises(TooLarge, match="the queue holds 10"):
        queue(max_rows=10).push(job(11))


def test_retry_after_is_when_enough_rows_will_have_left():
    """Six rows too many at 50 ms a row on two threads: 150 ms."""
    q = queue(max_rows=10, lanes=2)
    for _ in range(1000):
        q.pace.record(0.05)
    q.push(job(8))
    with pytest.raises(Overloaded) as refused:
        q.push(job(8))
    assert refused.value.retry_after_ms == 150


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(1, 40), st.sampled_from(MODELS)),
            st.tuples(st.just("cut"), st.none(), st.none()),
            st.tuples(st.just("drop"), st.integers(0, 30), st.none()),
        )
    )
)
def test_any_sequence_loses_and_duplicates_nothing(steps):
    """Every row is cut once and in order, or was dropped before it was cut."""
    q, jobs, dropped, cut = queue(max_rows=100), [], set(), {}
    for kind, number, model in [*steps, *[("cut", None, None)] * 100]:
        match kind:
            case "push":
                try:
                    q.push(new := job(number, model))
                    jobs.append(new)
                except Overloaded:
                    assert len(q) + number > q.max_rows
            case "cut" if batch := q.cut(0.0):
                assert batch.rows <= MAX_ROWS
                assert {entry.job.model for entry in batch.entries} == {batch.model}
                for entry in batch.entries:
                    assert entry.job not in dropped
                    cut.setdefault(entry.job, []).append(entry.index)
            case "drop" if number < len(jobs):
                q.drop(jobs[number])
                dropped.add(jobs[number])
    assert len(q) == 0
    for each in jobs:
        seen = cut.get(each, [])
        assert seen == list(range(len(seen)))
        assert each in dropped or len(seen) == len(each.rows)
