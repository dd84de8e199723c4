"""Failures between a text and its reply: the request gets an error, and nothing leaks."""

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
    """Raised by the failing steps in these tests."""


def embed(request_id, *texts, **fields):
    return Embed(id=request_id, input=texts, **fields)


@pytest.fixture
def fail(monkeypatch):
    """A function that makes the next calls of a class's method raise."""

    def fail(owner, name, times=1):
        before, left = getattr(owner, name), iter(range(times))

        def failing(*args, **options):
            if next(left, None) is not None:
                raise Fault(name)
            return before(*args, **options)

        monkeypatch.setattr(owner, name, failing)

    return fail


@pytest.fixture
async def reported():
    """The contexts passed to the loop's exception handler, which replaces the daemon's."""
    contexts = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


@pytest.fixture
def ask_two(make_engine, tiny):
    """A function that sends two requests, of one and two rows, and returns their outcomes."""

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
    """Check that nothing waits, is queued or counts as in flight."""
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
    """An error while assembling a result fails only its request, with `BackendFailed`."""
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
async def test_a_step_that_only_tells_of_a_row_fails_no_request(ask_two, fail, reported, at):
    """An error while recording a computed row is logged and fails no request."""
    engine, model, (first, second) = await ask_two(fail, *at)
    assert_vectors(first, model, "#a")
    assert_vectors(second, model, "b", "c")
    assert_empty(engine)
    assert [type(context["exception"]) for context in reported] == [Fault]


@pytest.mark.parametrize(
    "at",
    [(ResultCollectors, "deliver"), (WorkerPool, "completed"), (IntraOpPolicy, "record")],
    ids=lambda at: at[1],
)
async def test_books_that_fail_end_inference(ask_two, fail, at):
    """An error in the bookkeeping of waiting rows ends inference; clients retry elsewhere."""
    engine, _, (_, second) = await ask_two(fail, *at, intra_op_threads=2)
    assert isinstance(second, Draining)
    assert isinstance(await engine.crashed, Fault)
    assert (len(engine._collectors), engine._in_flight.count) == (0, 0)


async def test_a_queue_that_fails_takes_no_row_with_it_that_is_computed(ask_two, fail):
    """If the queue fails, a computed row is still delivered; waiting requests get `Draining`."""
    engine, model, (first, second) = await ask_two(fail, WorkerPool, "_take")
    assert_vectors(first, model, "#a")
    assert isinstance(second, Draining)
    assert isinstance(await engine.crashed, Fault)


async def test_a_queue_that_fails_is_nobody_s_fault(make_engine, tiny, fail):
    """If the queue fails, even a partly computed request gets the retryable `Draining`."""
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
    """If collecting a request's results cannot start, its rows leave the queue."""
    model = tiny()
    engine = make_engine(model)
    fail(ResultCollector, "__init__")
    with pytest.raises(Fault):
        await engine.embed(embed(1, "a", "b"))
    assert_vectors(await engine.embed(embed(2, "c")), model, "c")
    assert_empty(engine)


async def test_a_result_that_cannot_be_kept_is_not_counted(make_engine, tiny, monkeypatch):
    """A result that the cache cannot copy for lack of memory is not counted in its size."""
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
async def test_a_reply_that_fails_holds_nothing(make_dialogue, tiny, fail, reported, at):
    """If a reply or its statistics fail, the request's memory and slot are still released."""
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


async def test_a_line_that_cannot_be_written_holds_up_no_other(reported):
    """A deferred log line that fails does not stop the lines after it."""
    notes, written = DeferredLog(), []
    for note in (lambda: written.append(1), lambda: 1 // 0, lambda: written.append(2)):
        notes.add(note)
    notes.flush()
    assert written == [1, 2]
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]


async def test_lines_are_written_soon_in_order_and_once(soon):
    """Deferred log lines are written soon, in order and once, or at once by `flush`."""
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
    """A vector that is not finite fails its request with the text's index."""
    model = tiny()
    engine = make_engine(model)
    for normalize in (True, False):
        with pytest.raises(BackendFailed, match="not finite") as failed:
            await engine.embed(embed(1, "a", "b?", normalize=normalize))
        assert failed.value.index == 1
    assert_vectors(await engine.embed(embed(2, "c")), model, "c")
    assert_empty(engine)


async def test_a_query_that_fails_has_no_index(make_engine, tiny):
    """A failed query has no index; a failed document has its own."""
    engine = make_engine(tiny())
    with pytest.raises(BackendFailed) as failed:
        await engine.rerank(Rerank(id=1, query="q!", documents=("a", "b")))
    assert failed.value.index is None
    with pytest.raises(BackendFailed) as failed:
        await engine.rerank(Rerank(id=1, query="q", documents=("a", "b!")))
    assert failed.value.index == 1


async def test_a_text_of_no_tokens_is_refused_by_index(make_engine, tiny):
    """A text without tokens is rejected with its index before anything is queued."""
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
    """If a model has a vector for a text without tokens, such texts are served."""
    engine = make_engine(tiny(least_tokens=0))
    result = await engine.embed(embed(1, "a", ""))
    assert not result.vectors[1].any()
    assert result.answer.tokens == 1


async def test_a_request_that_nobody_begins_is_a_standstill(make_engine, tiny, monkeypatch):
    """A standstill is timed from the arrival of a request, not from the last finished row."""
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
    """Rows that wait while others finish are no standstill."""
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
    """A standstill of half of `hang_seconds` makes the daemon unhealthy."""
    talk = await make_dialogue(tiny(), hang_seconds=10)
    seconds = [4.9]
    monkeypatch.setattr(talk.context.engine, "standstill", lambda: seconds[0])
    assert (await talk.context.status(talk.session._peer))["healthy"]
    seconds[0] = 5.0
    assert not (await talk.context.status(talk.session._peer))["healthy"]


async def test_lines_about_a_failure_have_its_cause(make_dialogue, tiny, fail):
    """The event of a failed request has the traceback; its reply only names the exception."""
    talk = await make_dialogue(tiny())
    with capture_logs() as events:
        fail(ResultCollector, "_note")
        reply = await talk.ask(embed(1, "a"))
        talk.context.engine.notes.flush()
    assert reply["error"]["message"] == "the daemon failed with Fault"
    (event,) = [event for event in events if event["event"] == "request.failed"]
    assert "_note" in event["traceback"]
