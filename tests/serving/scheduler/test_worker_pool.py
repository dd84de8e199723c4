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


class Room:
    """Workers, and everything that they reported."""

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
        """Stop the workers; should a thread not have heard of it, wake it, so that it ends."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.workers.stop()
        finally:
            self.submit(model, *"abcdefgh")

    async def finished(self, count=1):
        async with asyncio.timeout(PATIENCE):
            return [await self.rows.get() for _ in range(count)]


@pytest.fixture
async def make_room(tiny):
    rooms = []

    def make(threads=1, clock=time.perf_counter):
        rooms.append(Room(threads, clock))
        return rooms[-1]

    yield make
    for room in rooms:
        for model in room.models:
            model.gate.set()
        await room.stop(tiny())


async def test_an_idle_thread_runs_a_row_at_once(make_room, tiny):
    """A lone row is a batch of one."""
    room, model = make_room(), tiny()
    room.submit(model, "abc")
    (row,) = await room.finished()
    assert row.batch.rows == 1
    assert row.outcome == pytest.approx(model.vector("abc"), abs=1e-6)
    assert row.started <= row.ended


async def test_a_row_that_is_alone_may_have_all_cores(make_room, tiny):
    """Not one that others wait behind, nor one that is begun while another is computed."""
    room, model = make_room(threads=2), tiny(intra_op_threads=2)
    alone = []
    model.forward_parallel = lambda row: alone.append(row.tokens) or model.forward(row)
    room.submit(model, "a", cost=60_000_000)  # it does not take longer
    await room.finished()
    model.gate.clear()
    room.submit(model, "bb")
    await model.began(2)
    room.submit(model, "ccc")
    await model.began()
    for text in ("dddd", "eeeee"):
        room.submit(model, text)
    model.gate.set()
    rows = await room.finished(4)
    assert [row.parallel for row in sorted(rows, key=lambda row: row.entry.row.tokens)][:2] == [
        True, False,
    ]  # fmt: skip
    assert alone[:2] == [1, 2]
    assert 3 not in alone
    assert 4 not in alone


async def test_a_row_that_others_wait_behind_is_not_alone(make_room, tiny):
    """The last of them is, though they were of one batch."""
    room, model = make_room(), tiny(intra_op_threads=2)
    model.gate.clear()
    room.submit(model, "a", cost=60_000_000)
    await model.began()
    room.submit(model, "b", "c", cost=60_000_000)
    model.gate.set()
    assert [row.parallel for row in await room.finished(3)] == [True, False, True]


async def test_a_row_that_took_longer_on_all_cores_than_expected_is_the_last_for_now(
    make_room, tiny
):
    """By its cost, in microseconds, and the clock, in seconds."""
    now, model = [0.0], tiny(intra_op_threads=2)
    room, forward = make_room(clock=lambda: now[0]), model.forward

    def slow(row):
        now[0] += 2.0
        return forward(row)

    model.forward_parallel = slow
    alone = []
    for text, cost in (("a", 2_000_001), ("b", 1_999_999), ("c", 1), ("d", 1)):
        room.submit(model, text, cost=cost)
        alone += [row.parallel for row in await room.finished()]
    assert alone == [True, True, False, True]


async def test_a_model_that_gains_nothing_by_more_cores_does_not_get_them(make_room, tiny):
    """Its rows are computed as they are beside others."""
    room, model = make_room(), tiny()
    model.forward_parallel = None
    room.submit(model, "abc")
    (row,) = await room.finished()
    assert not row.parallel
    assert row.outcome == pytest.approx(model.vector("abc"), abs=1e-6)


async def test_rows_gather_while_the_threads_are_busy(make_room, tiny):
    """What arrives during a forward is one batch, cut only when that forward is over."""
    room, model = make_room(), tiny()
    model.gate.clear()
    room.submit(model, "first")
    await model.began()
    for text in "abcde":
        room.submit(model, text)
    assert room.workers.waiting["interactive"][None].rows == 5
    model.gate.set()
    rows = await room.finished(6)
    assert [row.batch.rows for row in rows] == [1, 5, 5, 5, 5, 5]
    assert model.order == ["first", *"abcde"]


async def test_very_many_equal_rows_leave_without_another_call(make_room, tiny, soon):
    """Some at a time, so that others have the queue in between; the thread comes back by itself."""
    assert MAX_LEAVING <= 100
    room, model = make_room(threads=2), tiny(holds="#")
    model.gate.clear()
    room.submit(model, "#")
    await model.began()
    room.submit(model, *["#"] * (3 * MAX_LEAVING + 1))
    await soon(lambda: not room.workers.waiting["interactive"])
    assert model.order == ["#"]


async def test_no_row_waits_for_the_slowest_of_its_batch(make_room, tiny):
    """While one row of a batch is held, the others finish and the next batch begins."""
    room, model = make_room(threads=2), tiny(holds="#")
    model.gate.clear()
    room.submit(model, "#", "b", "c")
    rows = await room.finished(2)
    room.submit(model, "d")
    rows += await room.finished()
    assert [row.batch.id for row in rows] == [1, 1, 2]
    model.gate.set()
    (slow,) = await room.finished()
    assert slow.batch.id == 1


async def test_two_threads_share_one_batch(make_room, tiny):
    """The rows of a batch run side by side."""
    room, model = make_room(threads=2), tiny()
    model.gate.clear()
    room.submit(model, "a", "b", "c")
    await model.began(2)
    model.gate.set()
    rows = await room.finished(3)
    assert {row.batch.id for row in rows} == {1}


async def test_an_exception_of_the_model_fails_its_row_alone(make_room, tiny):
    """The neighbours in the batch are computed, and the thread lives on."""
    room, model = make_room(), tiny()
    room.submit(model, "a", "b!", "c")
    outcomes = [row.outcome for row in await room.finished(3)]
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, True, False]


async def test_a_row_that_failed_is_computed_once_more_alone(make_room, tiny, soon):
    """When no other row is being computed any more; nothing new begins before."""
    room, model = make_room(threads=2), tiny(holds="#")
    model.gate.clear()
    room.submit(model, "#", "b!", "c")
    await model.began(2)
    model.gate.set()
    outcomes = {row.entry.index: row.outcome for row in await room.finished(3)}
    assert isinstance(outcomes[1], ValueError)
    assert model.order == ["#", "b!", "b!", "c"]


def give_way():
    """Let other threads run, as far as they can."""
    for _ in range(1_000):
        time.sleep(0)


async def test_nothing_is_computed_beside_a_row_that_is_tried_again(make_room, tiny):
    """Neither what had begun before, which ends first, nor what waits; then all threads go on."""
    room, model = make_room(threads=2), tiny(holds="#")
    forward, beside = model.forward, []

    def watched(row):
        text = bytes(row.ids.astype(np.uint8)).decode()
        if text == "b!" and "b!" in model.order:
            beside.append(list(model.order))
            give_way()  # for who waits to be waiting
        try:
            return forward(row)
        finally:
            if text == "#1":
                give_way()
                beside.append("end of #1")

    model.forward = watched
    model.gate.clear()
    room.submit(model, "#1", "b!", "#2", "#3")
    await model.began(2)
    first, model.gate = model.gate, threading.Event()
    first.set()
    await model.began(3)  # once more, and the others at the same time
    assert sorted(model.order) == ["#1", "#2", "#3", "b!", "b!"]
    assert beside == ["end of #1", ["#1", "b!"]]
    model.gate.set()
    rows = await room.finished(4)
    assert [isinstance(row.outcome, ValueError) for row in rows].count(True) == 1


async def test_what_fails_once_is_no_failure(make_room, tiny):
    """A row that found no memory beside others finds it alone."""
    room, model = make_room(threads=2), tiny()
    forward, refusals = model.forward, [MemoryError()]

    def starved(row):
        if refusals:
            raise refusals.pop()
        return forward(row)

    model.forward = starved
    room.submit(model, "abc")
    (row,) = await room.finished()
    assert row.outcome == pytest.approx(model.vector("abc"), abs=1e-6)


async def test_what_failed_is_tried_again_on_one_thread(make_room, tiny):
    """What it lacked may have been memory, of which each of several takes some."""
    room, model = make_room(), tiny()
    model.forward_parallel = None
    room.submit(model, "a!")
    (row,) = await room.finished()
    assert isinstance(row.outcome, ValueError)


async def test_two_failures_at_once_wait_for_each_other(make_room, tiny):
    """Each is computed alone in its turn, and then the others go on."""
    room, model = make_room(threads=2), tiny()
    room.submit(model, *(f"{letter}!" for letter in "abcd"), "e")
    outcomes = [row.outcome for row in await room.finished(5)]
    assert sum(isinstance(outcome, ValueError) for outcome in outcomes) == 4


async def test_the_oldest_row_tells_how_long_it_runs(make_room, tiny):
    """Nothing runs: no time; of two the one that was begun first."""
    now = [100.0]
    room, model = make_room(threads=2, clock=lambda: now[0]), tiny()
    assert room.workers.longest() == 0
    model.gate.clear()
    for text in "ab":
        room.submit(model, text)
        await model.began()
        now[0] += 3.0
    assert room.workers.longest() == 6
    model.gate.set()
    await room.finished(2)
    assert room.workers.longest() == 0


async def test_nothing_moves_while_rows_run(make_room, tiny):
    """Each that is begun or ends is a move, and so is one that comes where none was."""
    now = [100.0]
    room, model = make_room(clock=lambda: now[0]), tiny()
    model.gate.clear()
    now[0] = 110.0
    room.submit(model, "a")
    assert room.workers.still() == 0
    await model.began()
    now[0] = 117.0
    room.submit(model, "b")  # where one runs already
    assert room.workers.still() == 7
    first, model.gate = model.gate, threading.Event()
    first.set()
    await room.finished()
    await model.began()
    now[0] = 119.0
    assert room.workers.still() == 2
    model.gate.set()
    (row,) = await room.finished()
    assert (row.started, row.ended) == (117.0, 119.0)
    now[0] = 120.0
    assert room.workers.still() == 1


async def test_a_vector_of_the_wrong_width_fails_its_row_alone(make_room, tiny):
    """A model that breaks its word is an error that has a name."""
    room, model = make_room(), tiny(dimensions=9)
    room.submit(model, "a")
    (row,) = await room.finished()
    assert isinstance(row.outcome, ValueError)


async def test_what_no_boundary_may_contain_is_a_crash(make_room, tiny):
    """It is reported to the loop, and the thread is gone."""
    room, model = make_room(), tiny()
    brought_down = room.submit(model, "a~")
    async with asyncio.timeout(PATIENCE):
        error, job = await room.crashes.get()
    assert isinstance(error, SystemExit)
    assert job is brought_down
    assert room.rows.empty()


async def test_dropped_rows_are_not_computed(make_room, tiny):
    """Neither those in the queue nor those of a batch that was cut."""
    room, model = make_room(), tiny()
    model.gate.clear()
    job = room.submit(model, *"abcdefghijklmnopqrstuvwxyz")
    await model.began()
    room.workers.drop(job)
    room.submit(model, "last")
    model.gate.set()
    await room.finished(2)
    assert model.order == ["a", "last"]


async def test_the_last_row_of_a_batch_says_so(make_room, tiny):
    """It comes when all others of its batch have been computed."""
    room, model = make_room(), tiny()
    room.submit(model, "ab", "cde")
    rows = await room.finished(2)
    assert [row.last for row in rows] == [False, True]


async def test_stop_lets_running_rows_end(make_room, tiny):
    """They are reported; those that wait are left."""
    room, model = make_room(), tiny()
    model.gate.clear()
    room.submit(model, "a", "b")
    await model.began()
    stopping = asyncio.create_task(room.stop(model))
    await asyncio.sleep(0)
    model.gate.set()
    await stopping
    (row,) = await room.finished()
    assert row.outcome == pytest.approx(model.vector("a"), abs=1e-6)
    assert model.order == ["a"]
    assert room.rows.empty()


async def test_stop_joins_the_threads(make_room, tiny):
    """After it no inference thread is left."""
    room = make_room(threads=3)
    await room.stop(tiny())
    assert not [t for t in threading.enumerate() if t.name.startswith("inference-")]
