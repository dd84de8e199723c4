"""Whatever fails between a text and its reply: its request is told, and nothing stays behind."""

import asyncio
from functools import partial

import numpy as np
import pytest
from structlog.testing import capture_logs

from client_lib.wire.errors import BackendFailed, BadRequest, Draining
from client_lib.wire.messages import Embed, Rerank
from sidecar.events.deferred import DeferredLog
from sidecar.serving.engine.collector import ResultCollector, ResultCollectors
from sidecar.serving.engine.result_cache import ResultCache
from sidecar.serving.postprocess import Postprocess
from sidecar.serving.results import Embeddings
from sidecar.serving.scheduler.cost_model import CostModel
from sidecar.serving.scheduler.intra_op import IntraOpPolicy
from sidecar.serving.scheduler.worker_pool import WorkerPool
from sidecar.serving.telemetry.statistics import Statistics


class Fault(Exception):
    """What a step raises in these tests."""


def embed(request_id, *texts, **fields):
    return Embed(id=request_id, input=texts, **fields)


@pytest.fixture
def fail(monkeypatch):
    """Let the next calls of a class's method raise; those that follow are as before."""

    def fail(owner, name, times=1):
        before, left = getattr(owner, name), iter(range(times))

        def failing(*args, **options):
            if next(left, None) is not None:
                raise Fault(name)
            return before(*args, **options)

        monkeypatch.setattr(owner, name, failing)

    return fail


@pytest.fixture
async def told():
    """What the loop's handler is told, in place of the daemon's, which makes events of it."""
    contexts = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


@pytest.fixture
def ask_two(make_engine, tiny):
    """Two requests at once, the first of one row and the other of two: what they come to."""

    async def ask(broken, *at, **options):
        model = tiny(holds="#", **options)
        engine = make_engine(model, cache_bytes=10_000)
        model.gate.clear()
        first = asyncio.create_task(engine.embed(embed(1, "#a")))
        await model.began()
        second = asyncio.create_task(engine.embed(embed(2, "b", "c")))
        broken(*at)
        model.gate.set()
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        return engine, model, outcomes

    return ask


def assert_empty(engine):
    """Nobody waits, nothing is queued, nothing is counted as being here."""
    assert (len(engine._collectors), engine._collectors._waiting) == (0, {})
    assert engine._in_flight.count == 0
    assert engine._queue.is_idle


def assert_vectors(result, model, *texts):
    expected = [model.vector(text) for text in texts]
    np.testing.assert_allclose(result.vectors, expected, atol=1e-6)


@pytest.mark.parametrize(
    "at",
    [
        (Postprocess, "__call__", 2),
        (ResultCollector, "_put"),
        (ResultCollector, "_note"),
        (ResultCollector, "_computed"),
    ],
    ids=lambda at: at[1],
)
async def test_a_step_of_the_answer_that_raises_fails_its_request_alone(ask_two, fail, at):
    """It is `BackendFailed`; a request beside it is answered, and nothing of either stays."""
    engine, model, (failed, answered) = await ask_two(fail, *at)
    assert isinstance(failed, BackendFailed)
    assert isinstance(failed.__cause__, Fault)
    assert_vectors(answered, model, "b", "c")
    assert_empty(engine)
    assert not engine.crashed.done()


@pytest.mark.parametrize(
    "at",
    [(CostModel, "record"), (ResultCache, "put"), (Statistics, "batch"), (DeferredLog, "add")],
    ids=lambda at: at[1],
)
async def test_a_step_that_only_tells_of_a_row_fails_no_request(ask_two, fail, told, at):
    """Both are answered, and the loop is told of the failure."""
    engine, model, (first, second) = await ask_two(fail, *at)
    assert_vectors(first, model, "#a")
    assert_vectors(second, model, "b", "c")
    assert_empty(engine)
    assert [type(context["exception"]) for context in told] == [Fault]


@pytest.mark.parametrize(
    "at",
    [(ResultCollectors, "deliver"), (WorkerPool, "completed"), (IntraOpPolicy, "record")],
    ids=lambda at: at[1],
)
async def test_books_that_fail_end_inference(ask_two, fail, at):
    """They could keep anybody waiting: all are answered, and clients ask the next daemon."""
    engine, _, (_, second) = await ask_two(fail, *at, intra_op_threads=2)
    assert isinstance(second, Draining)
    assert isinstance(await engine.crashed, Fault)
    assert (len(engine._collectors), engine._in_flight.count) == (0, 0)


async def test_a_queue_that_fails_takes_no_row_with_it_that_is_computed(ask_two, fail):
    """The row that was computed before is delivered; whoever waits is sent to the next daemon."""
    engine, model, (first, second) = await ask_two(fail, WorkerPool, "_take")
    assert_vectors(first, model, "#a")
    assert isinstance(second, Draining)
    assert isinstance(await engine.crashed, Fault)


async def test_a_queue_that_fails_is_nobody_s_fault(make_engine, tiny, fail):
    """A request of which one row was computed may ask the next daemon, as all may."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    asking = asyncio.create_task(engine.embed(embed(1, "a", "b")))
    await model.began()
    fail(WorkerPool, "_take")
    model.gate.set()
    with pytest.raises(Draining):
        await asking


async def test_a_request_for_whose_result_there_is_no_memory_leaves_the_queue(
    make_engine, tiny, fail
):
    """Its rows had been taken already."""
    model = tiny()
    engine = make_engine(model)
    fail(ResultCollector, "__init__")
    with pytest.raises(Fault):
        await engine.embed(embed(1, "a", "b"))
    assert_vectors(await engine.embed(embed(2, "c")), model, "c")
    assert_empty(engine)


async def test_a_result_that_cannot_be_kept_is_not_counted(make_engine, tiny, monkeypatch):
    """There was no memory for the copy; the cache holds what it says it holds."""
    cache = ResultCache(10_000)

    class Full(np.ndarray):
        def copy(self):
            raise MemoryError

    with pytest.raises(MemoryError):
        cache.put("key", np.zeros(8, np.float32).view(Full))
    assert (cache.to_map()["bytes"], cache.to_map()["rows"]) == (0, 0)


@pytest.mark.parametrize(
    "at",
    [(Embeddings, "to_map"), (Statistics, "answered"), (Statistics, "failed")],
    ids=lambda at: at[1],
)
async def test_a_reply_that_fails_holds_nothing(make_dialogue, tiny, fail, told, at):
    """The request is answered all the same, and its memory and its slot are free again."""
    talk = await make_dialogue(tiny(), max_in_flight=1)
    held = talk.context.accounts.requests.to_map()["held_bytes"]
    fail(*at)
    replies = [await talk.ask(embed(1, "a")), await talk.ask(embed(2, "b!"))]
    again = await talk.ask(embed(3, "c"))
    assert again["ok"]
    codes = [reply.get("error", {}).get("code") for reply in replies]
    assert codes == ["backend_failed" if at[1] == "to_map" else None, "backend_failed"]
    assert talk.context.accounts.requests.to_map()["held_bytes"] == held
    assert (talk.context.accepted.count, talk.context.untaken.count) == (0, 0)
    assert_empty(talk.context.engine)


async def test_a_line_that_cannot_be_written_holds_up_no_other(told):
    """The rest of those that were put off with it follow."""
    notes, written = DeferredLog(), []
    for note in (lambda: written.append(1), lambda: 1 // 0, lambda: written.append(2)):
        notes.add(note)
    notes.flush()
    assert written == [1, 2]
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]


async def test_lines_are_written_soon_in_order_and_once(soon):
    """By themselves, those of a moment together; or at once, where somebody asks for it."""
    notes, written = DeferredLog(), []
    for number in (1, 2):
        notes.add(partial(written.append, number))
    assert written == []
    await soon(lambda: written)
    assert written == [1, 2]
    notes.add(partial(written.append, 3))
    notes.flush()
    assert written == [1, 2, 3]
    notes.flush()
    notes.add(partial(written.append, 4))
    await soon(lambda: len(written) > 3)
    assert written == [1, 2, 3, 4]


async def test_a_vector_that_is_not_finite_is_not_served(make_engine, tiny):
    """Its request fails with the text's index; with and without normalisation."""
    model = tiny()
    engine = make_engine(model)
    for normalize in (True, False):
        with pytest.raises(BackendFailed, match="not finite") as failed:
            await engine.embed(embed(1, "a", "b?", normalize=normalize))
        assert failed.value.index == 1
    assert_vectors(await engine.embed(embed(2, "c")), model, "c")
    assert_empty(engine)


async def test_a_query_that_fails_has_no_index(make_engine, tiny):
    """Indexes are the documents'; one of those that fails has its own."""
    engine = make_engine(tiny())
    with pytest.raises(BackendFailed) as failed:
        await engine.rerank(Rerank(id=1, query="q!", documents=("a", "b")))
    assert failed.value.index is None
    with pytest.raises(BackendFailed) as failed:
        await engine.rerank(Rerank(id=1, query="q", documents=("a", "b!")))
    assert failed.value.index == 1


async def test_a_text_of_no_tokens_is_refused_by_index(make_engine, tiny):
    """Before anything of its request is queued; a query has no index."""
    model = tiny()
    engine = make_engine(model)
    with pytest.raises(BadRequest, match="text 1 has no tokens for tiny") as refused:
        await engine.embed(embed(1, "a", ""))
    assert refused.value.index == 1
    with pytest.raises(BadRequest, match="the query has no tokens") as refused:
        await engine.rerank(Rerank(id=1, query="", documents=("a",)))
    assert refused.value.index is None
    assert model.order == []
    assert_empty(engine)


async def test_a_model_may_have_a_vector_for_no_tokens(make_engine, tiny):
    """Then it is served, alone and among others."""
    engine = make_engine(tiny(least_tokens=0))
    result = await engine.embed(embed(1, "a", ""))
    assert not result.vectors[1].any()
    assert result.answer.tokens == 1


async def test_a_request_that_nobody_begins_is_a_standstill(make_engine, tiny, monkeypatch):
    """Its age is counted from when it came, and not from when the last row had ended."""
    now = [0.0]
    monkeypatch.setattr(WorkerPool, "_take", lambda _: None)
    engine = make_engine(tiny(), clock=lambda: now[0])
    now[0] = 100.0
    assert engine.standstill() == 0
    asking = asyncio.create_task(engine.embed(embed(1, "a")))
    await asyncio.sleep(0)
    now[0] = 107.0
    assert (engine.standstill(), engine.longest_forward()) == (7.0, 0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert engine.standstill() == 0


async def test_rows_that_wait_while_others_end_are_no_standstill(make_engine, tiny, soon):
    """Bulk work may wait for as long as it takes, if only something is computed."""
    now = [0.0]
    model = tiny()
    engine = make_engine(model, clock=lambda: now[0])
    model.gate.clear()
    asking = asyncio.create_task(engine.embed(embed(1, "a", "b", priority="bulk")))
    await model.began()
    now[0] = 60.0
    assert (engine.standstill(), engine.longest_forward()) == (60.0, 60.0)
    model.gate.set()
    await asking
    assert engine.standstill() == 0
    model.gate.clear()
    asking = asyncio.create_task(engine.embed(embed(2, "c", "d", priority="bulk")))
    await model.began()
    model.forward = lambda row: np.ones(8, np.float32)
    now[0] = 70.0
    model.gate.set()
    await asking
    assert engine._workers.still() == 0


async def test_a_standstill_is_not_healthy(make_dialogue, tiny, monkeypatch):
    """`status` says so long before the daemon gives up on itself."""
    talk = await make_dialogue(tiny(), hang_seconds=10)
    seconds = [4.9]
    monkeypatch.setattr(talk.context.engine, "standstill", lambda: seconds[0])
    assert (await talk.context.status(talk.session._peer))["healthy"]
    seconds[0] = 5.0
    assert not (await talk.context.status(talk.session._peer))["healthy"]


async def test_lines_about_a_failure_have_its_cause(make_dialogue, tiny, fail):
    """The event has the traceback; the caller the kind of exception alone."""
    talk = await make_dialogue(tiny())
    with capture_logs() as events:
        fail(ResultCollector, "_note")
        reply = await talk.ask(embed(1, "a"))
        talk.context.engine.notes.flush()
    assert reply["error"]["message"] == "the daemon failed with Fault"
    (event,) = [event for event in events if event["event"] == "request.failed"]
    assert "_note" in event["traceback"]
