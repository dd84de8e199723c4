import asyncio
import threading
import time

import numpy as np
import pytest

from sidecar.serving.postprocess import Postprocess
from sidecar.serving.scheduler.job import Job
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.scheduler.queue import MAX_LEAVING, Queue
from sidecar.serving.scheduler.worker_pool import Callbacks, WorkerPool

from ..conftest import PATIENCE


class Harness:
    """A worker pool, and everything that it reported."""

    def __init__(self, threads, clock):
        self.rows, self.crashes = asyncio.Queue(), asyncio.Queue()
        self.models = set()
        self.queue = Queue(QueueLimits(), threads)
        callbacks = Callbacks(self.rows.put_nowait, lambda *crash: self.crashes.put_nowait(crash))
        self.workers = WorkerPool(self.queue, threads, callbacks, clock)
        self.workers.start()

    def job(self, model, *texts, cost=1, **fields):
        self.models.add(model)
        finish = Postprocess(model.dimensions, normalize=True)
        costs = [cost] * len(texts)
        rows = tuple(model.tokenize(texts))
        return Job(model=model, rows=rows, costs=costs, finish=finish, arrived=0.0, **fields)

    def submit(self, *args, **fields):
        job = self.job(*args, **fields)
        self.workers.submit(job)
        return job

    async def stop(self, model):
        """Stop the workers; if a thread was not notified of it, wake it, so that it ends."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.workers.stop()
        finally:
            self.submit(model, *"abcdefgh")

    async def finished(self, count=1):
        async with asyncio.timeout(PATIENCE):
            return [await self.rows.get() for _ in range(count)]


@pytest.fixture
async def make_harness(tiny):
    harnesses = []

    def make(threads=1, clock=time.perf_counter):
        harnesses.append(Harness(threads, clock))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        for model in harness.models:
            model.gate.set()
        await harness.stop(tiny())


async def test_an_idle_thread_runs_a_row_at_once(make_harness, tiny):
    """An idle thread computes a lone row at once, as a batch of one."""
    harness, model = make_harness(), tiny()
    harness.submit(model, "abc")
    (row,) = await harness.finished()
    assert row.batch.rows == 1
    assert row.outcome == pytest.approx(model.vector("abc"), abs=1e-6)
    assert row.started <= row.ended


async def test_a_row_that_is_alone_may_have_all_cores(make_harness, tiny):
    """A row runs on all cores only if no other row waits or runs."""
    harness, model = make_harness(threads=2), tiny(intra_op_threads=2)
    alone = []
    model.forward_parallel = lambda row: alone.append(row.tokens) or model.forward(row)
    harness.submit(model, "a", cost=60_000_000)  # will not take longer than this
    await harness.finished()
    model.gate.clear()
    harness.submit(model, "bb")
    await model.began(2)
    harness.submit(model, "ccc")
    await model.began()
    for text in ("dddd", "eeeee"):
        harness.submit(model, text)
    model.gate.set()
    rows = await harness.finished(4)
    assert [row.parallel for row in sorted(rows, key=lambda row: row.entry.row.tokens)][:2] == [
        True, False,
    ]  # fmt: skip
    assert alone[:2] == [1, 2]
    assert 3 not in alone
    assert 4 not in alone


async def test_a_row_that_others_wait_behind_is_not_alone(make_harness, tiny):
    """Of the rows of a batch, only the last runs on all cores."""
    harness, model = make_harness(), tiny(intra_op_threads=2)
    model.gate.clear()
    harness.submit(model, "a", cost=60_000_000)
    await model.began()
    harness.submit(model, "b", "c", cost=60_000_000)
    model.gate.set()
    assert [row.parallel for row in await harness.finished(3)] == [True, False, True]


async def test_a_row_that_took_longer_on_all_cores_than_expected_is_the_last_for_now(
    make_harness, tiny
):
    """After a shared row that exceeds its cost, in microseconds, the next is not shared."""
    now, model = [0.0], tiny(intra_op_threads=2)
    harness, forward = make_harness(clock=lambda: now[0]), model.forward

    def slow(row):
        now[0] += 2.0
        return forward(row)

    model.forward_parallel = slow
    alone = []
    for text, cost in (("a", 2_000_001), ("b", 1_999_999), ("c", 1), ("d", 1)):
        harness.submit(model, text, cost=cost)
        alone += [row.parallel for row in await harness.finished()]
    assert alone == [True, True, False, True]


async def test_a_model_that_gains_nothing_by_more_cores_does_not_get_them(make_harness, tiny):
    """A model that does not support several cores is never given them."""
    harness, model = make_harness(), tiny()
    model.forward_parallel = None
    harness.submit(model, "abc")
    (row,) = await harness.finished()
    assert not row.parallel
    assert row.outcome == pytest.approx(model.vector("abc"), abs=1e-6)


async def test_rows_gather_while_the_threads_are_busy(make_harness, tiny):
    """Rows that arrive during a forward form one batch, cut only when that forward is over."""
    harness, model = make_harness(), tiny()
    model.gate.clear()
    harness.submit(model, "first")
    await model.began()
    for text in "abcde":
        harness.submit(model, text)
    assert harness.workers.waiting["interactive"][None].rows == 5
    model.gate.set()
    rows = await harness.finished(6)
    assert [row.batch.rows for row in rows] == [1, 5, 5, 5, 5, 5]
    assert model.order == ["first", *"abcde"]


async def test_very_many_equal_rows_leave_without_another_call(make_harness, tiny, soon):
    """Very many equal rows leave a few at a time, without anybody calling again."""
    assert MAX_LEAVING <= 100
    harness, model = make_harness(threads=2), tiny(holds="#")
    model.gate.clear()
    harness.submit(model, "#")
    await model.began()
    harness.submit(model, *["#"] * (3 * MAX_LEAVING + 1))
    await soon(lambda: not harness.workers.waiting["interactive"])
    assert model.order == ["#"]


async def test_no_row_waits_for_the_slowest_of_its_batch(make_harness, tiny):
    """While one row of a batch is slow, the others finish and the next batch starts."""
    harness, model = make_harness(threads=2), tiny(holds="#")
    model.gate.clear()
    harness.submit(model, "#", "b", "c")
    rows = await harness.finished(2)
    harness.submit(model, "d")
    rows += await harness.finished()
    assert [row.batch.id for row in rows] == [1, 1, 2]
    model.gate.set()
    (slow,) = await harness.finished()
    assert slow.batch.id == 1


async def test_two_threads_share_one_batch(make_harness, tiny):
    """Two threads compute rows of one batch in parallel."""
    harness, model = make_harness(threads=2), tiny()
    model.gate.clear()
    harness.submit(model, "a", "b", "c")
    await model.began(2)
    model.gate.set()
    rows = await harness.finished(3)
    assert {row.batch.id for row in rows} == {1}


async def test_an_exception_of_the_model_fails_its_row_alone(make_harness, tiny):
    """An exception of the model fails only its row; the batch and the thread go on."""
    harness, model = make_harness(), tiny()
    harness.submit(model, "a", "b!", "c")
    outcomes = [row.outcome for row in await harness.finished(3)]
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, True, False]


async def test_a_row_that_failed_is_computed_once_more_alone(make_harness, tiny, soon):
    """A failed row is retried once no other row is running, and nothing new starts before."""
    harness, model = make_harness(threads=2), tiny(holds="#")
    model.gate.clear()
    harness.submit(model, "#", "b!", "c")
    await model.began(2)
    model.gate.set()
    outcomes = {row.entry.index: row.outcome for row in await harness.finished(3)}
    assert isinstance(outcomes[1], ValueError)
    assert model.order == ["#", "b!", "b!", "c"]


def give_way():
    """Let other threads run until they wait."""
    for _ in range(1_000):
        time.sleep(0)


async def test_nothing_is_computed_beside_a_row_that_is_tried_again(make_harness, tiny):
    """A retry waits for running rows and blocks new ones; then all threads continue."""
    harness, model = make_harness(threads=2), tiny(holds="#")
    forward, beside = model.forward, []

    def watched(row):
        text = bytes(row.ids.astype(np.uint8)).decode()
        if text == "b!" and "b!" in model.order:
            beside.append(list(model.order))
            give_way()  # lets the other thread start waiting
        try:
            return forward(row)
        finally:
            if text == "#1":
                give_way()
                beside.append("end of #1")

    model.forward = watched
    model.gate.clear()
    harness.submit(model, "#1", "b!", "#2", "#3")
    await model.began(2)
    first, model.gate = model.gate, threading.Event()
    first.set()
    await model.began(3)  # the retry, then the others at the same time
    assert sorted(model.order) == ["#1", "#2", "#3", "b!", "b!"]
    assert beside == ["end of #1", ["#1", "b!"]]
    model.gate.set()
    rows = await harness.finished(4)
    assert [isinstance(row.outcome, ValueError) for row in rows].count(True) == 1


async def test_what_fails_once_is_no_failure(make_harness, tiny):
    """A row that ran out of memory beside others succeeds when it is retried alone."""
    harness, model = make_harness(threads=2), tiny()
    forward, refusals = model.forward, [MemoryError()]

    def starved(row):
        if refusals:
            raise refusals.pop()
        return forward(row)

    model.forward = starved
    harness.submit(model, "abc")
    (row,) = await harness.finished()
    assert row.outcome == pytest.approx(model.vector("abc"), abs=1e-6)


async def test_what_failed_is_tried_again_on_one_thread(make_harness, tiny):
    """A failed row is retried on a single thread, which needs less memory."""
    harness, model = make_harness(), tiny()
    model.forward_parallel = None
    harness.submit(model, "a!")
    (row,) = await harness.finished()
    assert isinstance(row.outcome, ValueError)


async def test_two_failures_at_once_wait_for_each_other(make_harness, tiny):
    """Rows that fail at the same time are retried one by one, and then the others continue."""
    harness, model = make_harness(threads=2), tiny()
    harness.submit(model, *(f"{letter}!" for letter in "abcd"), "e")
    outcomes = [row.outcome for row in await harness.finished(5)]
    assert sum(isinstance(outcome, ValueError) for outcome in outcomes) == 4


async def test_the_oldest_row_tells_how_long_it_runs(make_harness, tiny):
    """`longest` is the time of the row that started first, and zero if none runs."""
    now = [100.0]
    harness, model = make_harness(threads=2, clock=lambda: now[0]), tiny()
    assert harness.workers.longest() == 0
    model.gate.clear()
    for text in "ab":
        harness.submit(model, text)
        await model.began()
        now[0] += 3.0
    assert harness.workers.longest() == 6
    model.gate.set()
    await harness.finished(2)
    assert harness.workers.longest() == 0


async def test_nothing_moves_while_rows_run(make_harness, tiny):
    """Progress is a row that starts, finishes, or arrives while none was there."""
    now = [100.0]
    harness, model = make_harness(clock=lambda: now[0]), tiny()
    model.gate.clear()
    now[0] = 110.0
    harness.submit(model, "a")
    assert harness.workers.still() == 0
    await model.began()
    now[0] = 117.0
    harness.submit(model, "b")  # while one is running already
    assert harness.workers.still() == 7
    first, model.gate = model.gate, threading.Event()
    first.set()
    await harness.finished()
    await model.began()
    now[0] = 119.0
    assert harness.workers.still() == 2
    model.gate.set()
    (row,) = await harness.finished()
    assert (row.started, row.ended) == (117.0, 119.0)
    now[0] = 120.0
    assert harness.workers.still() == 1


async def test_a_vector_of_the_wrong_width_fails_its_row_alone(make_harness, tiny):
    """A vector of the wrong width fails its row with a `ValueError`."""
    harness, model = make_harness(), tiny(dimensions=9)
    harness.submit(model, "a")
    (row,) = await harness.finished()
    assert isinstance(row.outcome, ValueError)


async def test_what_no_boundary_may_contain_is_a_crash(make_harness, tiny):
    """A `SystemExit` from a model is reported as a crash with its job, and no row is reported."""
    harness, model = make_harness(), tiny()
    brought_down = harness.submit(model, "a~")
    async with asyncio.timeout(PATIENCE):
        error, job = await harness.crashes.get()
    assert isinstance(error, SystemExit)
    assert job is brought_down
    assert harness.rows.empty()


async def test_dropped_rows_are_not_computed(make_harness, tiny):
    """Dropped rows are not computed, neither from the queue nor from the current batch."""
    harness, model = make_harness(), tiny()
    model.gate.clear()
    job = harness.submit(model, *"abcdefghijklmnopqrstuvwxyz")
    await model.began()
    harness.workers.drop(job)
    harness.submit(model, "last")
    model.gate.set()
    await harness.finished(2)
    assert model.order == ["a", "last"]


async def test_the_last_row_of_a_batch_says_so(make_harness, tiny):
    """Only the last row of a batch to finish is marked as last."""
    harness, model = make_harness(), tiny()
    harness.submit(model, "ab", "cde")
    rows = await harness.finished(2)
    assert [row.last for row in rows] == [False, True]


async def test_stop_lets_running_rows_end(make_harness, tiny):
    """Stopping finishes and reports running rows, and leaves those that wait."""
    harness, model = make_harness(), tiny()
    model.gate.clear()
    harness.submit(model, "a", "b")
    await model.began()
    stopping = asyncio.create_task(harness.stop(model))
    await asyncio.sleep(0)
    model.gate.set()
    await stopping
    (row,) = await harness.finished()
    assert row.outcome == pytest.approx(model.vector("a"), abs=1e-6)
    assert model.order == ["a"]
    assert harness.rows.empty()


async def test_stop_joins_the_threads(make_harness, tiny):
    """No inference thread is left after `stop`."""
    harness = make_harness(threads=3)
    await harness.stop(tiny())
    assert not [t for t in threading.enumerate() if t.name.startswith("inference-")]
