import asyncio
import itertools
import threading
from dataclasses import asdict

import numpy as np
import pytest
from structlog.testing import capture_logs

from client_lib.wire.errors import (
    BackendFailed,
    BadRequest,
    DeadlineExceeded,
    Draining,
    Overloaded,
    TooLarge,
    UnknownModel,
)
from client_lib.wire.messages import Embed, Rerank
from client_lib.wire.replies import RerankResult
from sidecar.serving.admission.memory_estimator import MemoryEstimator
from sidecar.serving.admission.peer import Peer
from sidecar.serving.scheduler.cost_model import CostModel
from sidecar.serving.scheduler.limits import QueueLimits

from ..conftest import PATIENCE


def embed(*texts, **fields):
    return Embed(id=1, input=texts, **fields)


def rerank(query, *documents, **fields):
    return Rerank(id=1, query=query, documents=documents, **fields)


def rows_waiting(engine, priority="interactive"):
    return engine.status()["queue"][priority]["rows"]


async def test_vectors_come_in_the_order_of_the_texts(make_engine, tiny):
    """A request split over batches and threads returns its vectors in the order of the texts."""
    model = tiny()
    texts = [f"text {i}" for i in range(50)]
    result = await make_engine(model, threads=2).embed(embed(*texts))
    assert result.vectors.dtype == np.float32
    np.testing.assert_allclose(result.vectors, [model.vector(t) for t in texts], atol=1e-6)
    assert result.answer.timings.batch_rows == 16


async def test_a_text_has_the_same_bytes_in_any_company(make_engine, tiny):
    """A text's vector has the same bytes whether it is computed alone or beside other texts."""
    engine = make_engine(tiny(), threads=2)
    alone = (await engine.embed(embed("abc"))).vectors.tobytes()
    among = (await engine.embed(embed(*"defg", "abc", *"hijklmnopqrstuvw"))).vectors[4].tobytes()
    assert alone == among


async def test_usage_counts_the_tokens_that_were_computed(make_engine, tiny):
    """A truncated text counts only the tokens that were computed."""
    result = await make_engine(tiny()).embed(embed("abc", "x" * 40))
    assert (result.answer.rows, result.answer.tokens) == (2, 3 + 32)
    assert result.answer.truncated == (1,)


async def test_a_long_text_is_refused_by_index_where_it_may_not_be_cut(make_engine, tiny):
    """An overlong text is rejected by index, with the limit, if truncation is not allowed."""
    with pytest.raises(BadRequest, match=r"text 1 exceeds the 32-token limit") as refused:
        await make_engine(tiny()).embed(embed("abc", "x" * 40, truncate=False))
    assert refused.value.index == 1


async def test_long_texts_are_tokenized_off_the_loop(make_engine, tiny):
    """Long or many texts are tokenized off the event loop and yield the same vectors."""
    model, threads = tiny(max_tokens=1000), set()
    tokenize = model.tokenize

    def recorded(texts):
        threads.add(threading.get_ident())
        return tokenize(texts)

    model.tokenize = recorded
    texts = ["y" * 900, *(f"{i}" for i in range(40))]
    result = await make_engine(model).embed(embed(*texts))
    np.testing.assert_allclose(result.vectors, [model.vector(t) for t in texts], atol=1e-6)
    assert threads
    assert threading.get_ident() not in threads


async def test_texts_are_tokenized_in_turn(make_engine, tiny):
    """Users take turns at tokenizing by cost; a user's interactive texts precede bulk ones."""
    model, begun, go, order = tiny(), threading.Event(), threading.Event(), []
    tokenize = model.tokenize

    def held(texts):
        order.append(texts[0][0])
        begun.set()
        assert go.wait(PATIENCE)
        return tokenize(texts)

    model.tokenize = held
    engine, one, other = make_engine(model), Peer(1, 1, 1), Peer(2, 2, 2)

    def asking(letter, peer, priority):
        return asyncio.create_task(engine.embed(embed(letter * 9_000, priority=priority), peer))

    tasks = [asking("a", one, "bulk")]
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    tasks += [asking(letter, one, "bulk") for letter in "bc"]
    tasks += [asking("s", one, "interactive"), asking("o", other, "bulk")]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert order == [*"aosbc"]


@pytest.mark.parametrize(
    ("name", "default", "sent"),
    [("query", None, "q: a"), (None, None, "a"), (None, "doc", "d: a"), ("query", "doc", "q: a")],
)
async def test_prompts(make_engine, tiny, name, default, sent):
    """The named prompt is used, otherwise the model's default one, otherwise none."""
    model = tiny(prompts={"query": "q: ", "doc": "d: "}, default_prompt_name=default)
    await make_engine(model).embed(embed("a", prompt_name=name))
    assert model.order == [sent]


@pytest.mark.parametrize(
    ("prompts", "role", "sent"),
    [
        ({"query": "q: ", "document": "d: "}, "query", "q: a"),
        ({"query": "q: ", "document": "d: "}, "document", "d: a"),
        ({"query": "", "document": "d: ", "other": "o: "}, "query", "a"),
        ({"passage": "p: ", "corpus": "c: ", "other": "o: "}, "document", "p: a"),
        ({"document": "", "passage": "p: ", "other": "o: "}, "document", "a"),
        ({"passage": "p: ", "other": "o: "}, "query", "o: a"),
    ],
)
async def test_a_role_s_prompt(make_engine, tiny, prompts, role, sent):
    """A role's own prompt, even an empty one, takes precedence over the default prompt."""
    default = "other" if "other" in prompts else None
    model = tiny(prompts=prompts, default_prompt_name=default)
    await make_engine(model).embed(embed("a", role=role))
    assert model.order == [sent]


async def test_a_role_without_any_prompt(make_engine, tiny):
    """Texts are embedded as they are if neither their role nor the model has a prompt."""
    model = tiny(prompts={"query": "q: "})
    await make_engine(model).embed(embed("a", role="document"))
    assert model.order == ["a"]


async def test_a_prompt_s_name_goes_before_a_role(make_engine, tiny):
    """A prompt name takes precedence over a role, as in sentence-transformers."""
    model = tiny(prompts={"query": "q: ", "document": "d: "})
    await make_engine(model).embed(embed("a", role="query", prompt_name="document"))
    assert model.order == ["d: a"]


async def test_an_unknown_prompt_is_refused_with_the_known_ones(make_engine, tiny):
    """An unknown prompt is rejected, and the message lists the known ones."""
    model = tiny(prompts={"query": "q: ", "doc": "d: "})
    with pytest.raises(BadRequest, match="known: query, doc"):
        await make_engine(model).embed(embed("a", prompt_name="nope"))


async def test_dimensions_are_cut_before_normalisation(make_engine, tiny):
    """Dimensions are cut before normalisation, so the shorter vector has length 1 again."""
    model = tiny()
    result = await make_engine(model).embed(embed("abc", dimensions=3))
    expected = model.vector("abc")[:3]
    np.testing.assert_allclose(result.vectors[0], expected / np.linalg.norm(expected), atol=1e-6)


async def test_more_dimensions_than_there_are_is_refused(make_engine, tiny):
    """More dimensions than the model has are rejected, and the message gives its dimensions."""
    with pytest.raises(BadRequest, match="tiny has 8"):
        await make_engine(tiny()).embed(embed("abc", dimensions=9))


@pytest.mark.parametrize(
    ("own", "requested", "unit"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
async def test_normalize(make_engine, tiny, own, requested, unit):
    """The request's `normalize` takes precedence over the model's."""
    result = await make_engine(tiny(normalize=own)).embed(embed("abc", normalize=requested))
    assert bool(abs(np.linalg.norm(result.vectors[0]) - 1) < 1e-6) is unit


async def test_a_name_that_is_not_served_is_refused_with_those_that_are(make_engine, tiny):
    """`embed` and `rerank` reject a model that is not served, and name those that are."""
    engine = make_engine(tiny(name="a"), tiny(name="b", task="rerank"))
    with pytest.raises(UnknownModel, match="served: a, b"):
        await engine.embed(embed("x", model="c"))
    with pytest.raises(UnknownModel, match="served: a, b"):
        await engine.rerank(rerank("x", "y", model="c"))


async def test_a_reranker_does_not_embed(make_engine, tiny):
    """A reranker does not embed, whether it is requested by name or the only model served."""
    engine = make_engine(tiny(task="rerank"))
    with pytest.raises(BadRequest, match="is a reranker"):
        await engine.embed(embed("x", model="tiny"))
    with pytest.raises(UnknownModel, match="no model for 'embed' is served"):
        await engine.embed(embed("x"))


async def test_a_cross_encoder_ranks_by_its_scores(make_engine, tiny):
    """A cross-encoder ranks by its scores, best first, ties by index, cut to `top_n`."""
    engine = make_engine(tiny(), tiny(name="cross", task="rerank"))
    result = await engine.rerank(rerank("abc", "xxa", "abc", "zzb", "ab", top_n=3))
    assert (result.answer.model, result.method) == ("cross", "cross_encoder")
    assert result.results == (RerankResult(1, 3.0), RerankResult(3, 2.0), RerankResult(0, 1.0))


async def test_an_embedding_model_ranks_by_cosine(make_engine, tiny):
    """An embedding model ranks by cosine, with prompts for query and documents."""
    model = tiny(prompts={"query": "q: ", "passage": "p: "}, normalize=False)
    engine = make_engine(model)
    result = await engine.rerank(rerank("abc", "xyz", "abd"))
    exact = tiny()
    expected = [float(exact.vector("q: abc") @ exact.vector(f"p: {d}")) for d in ("xyz", "abd")]
    assert result.method == "embedding"
    scores = {hit.index: hit.relevance_score for hit in result.results}
    assert scores == pytest.approx(dict(enumerate(expected)), abs=1e-6)
    assert [hit.index for hit in result.results] == [1, 0]
    best = await engine.rerank(rerank("abc", "xyz", "abd", top_n=1))
    assert best.results == result.results[:1]


async def test_an_embedding_rerank_refuses_the_query_by_name(make_engine, tiny):
    """An overlong query is rejected without an index, since indexes refer to documents."""
    with pytest.raises(BadRequest, match="the query exceeds") as refused:
        await make_engine(tiny()).rerank(rerank("x" * 40, "a", truncate=False))
    assert refused.value.index is None


async def test_a_poisonous_text_fails_its_request_alone(make_engine, tiny):
    """A text on which the model raises fails only its own request, with the text's index."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    requests = [embed("first"), embed("a", "b!"), embed("c")]
    tasks = [asyncio.create_task(engine.embed(request)) for request in requests]
    await model.began()
    model.gate.set()
    _, failed, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(failed, BackendFailed)
    assert (failed.index, "ValueError" in failed.message) == (1, True)
    assert isinstance(failed.__cause__, ValueError)
    np.testing.assert_allclose(last.vectors[0], model.vector("c"), atol=1e-6)


async def test_a_cancelled_request_leaves_the_queue_at_once(make_engine, tiny):
    """A cancelled request's waiting rows are dropped at once; its running row is ignored."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    task = asyncio.create_task(engine.embed(embed(*"abcdefghijklmnopqrstuvwxyz")))
    await model.began()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert rows_waiting(engine) == 0
    model.gate.set()
    await engine.embed(embed("next"))
    assert model.order == ["a", "next"]


async def test_a_full_queue_refuses_the_whole_request(make_engine, tiny, soon):
    """A full queue rejects a whole request: with a retry time, or for good if it never fits."""
    model = tiny()
    engine = make_engine(model, bounds=QueueLimits(rows=4, peer_share=1))
    with pytest.raises(TooLarge):
        await engine.embed(embed(*"abcde"))
    model.gate.clear()
    running = asyncio.create_task(engine.embed(embed("a")))
    await model.began()
    waiting = asyncio.create_task(engine.embed(embed(*"bcd")))
    await soon(lambda: rows_waiting(engine) == 3)
    with pytest.raises(Overloaded) as refused:
        await engine.embed(embed(*"ef"))
    assert refused.value.retry_after_ms >= 1
    model.gate.set()
    await asyncio.gather(running, waiting)


async def test_a_crash_sends_the_others_to_the_next_daemon(make_engine, tiny, soon):
    """A crash reports its cause to the request behind it; all others get `Draining`."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    tasks = [asyncio.create_task(engine.embed(embed("a~")))]
    await model.began()
    tasks += [asyncio.create_task(engine.embed(embed(text))) for text in "bc"]
    await soon(lambda: rows_waiting(engine) == 2)
    model.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BackendFailed, Draining, Draining]
    assert "inference has stopped: SystemExit" in str(outcomes[0])
    assert isinstance(await engine.crashed, SystemExit)
    with pytest.raises(Draining):
        await engine.embed(embed("later"))


async def test_status_says_what_is_served(make_engine, tiny):
    """The status lists models and their costs, the queue and its bounds, threads and batches."""
    engine = make_engine(tiny(), threads=2)
    await engine.embed(embed("a"))
    status = engine.status()
    assert status["models"] == [{"name": "tiny", "task": "embed"}]
    assert (status["threads"], status["batches"]) == (2, 1)
    assert set(status["costs"]["tiny"]) == {"fixed_ms", "per_token_ms"}
    empty = {"rows": 0, "tokens": 0, "bytes": 0, "cost_ms": 0, "peers": {}}
    assert status["queue"] == {
        "interactive": empty, "bulk": empty, "bounds": asdict(QueueLimits()),
    }  # fmt: skip


async def test_a_batch_is_an_event_that_is_not_lost_with_the_loop(make_engine, tiny):
    """Each batch is logged once with its rows and tokens, and stopping flushes deferred lines."""
    engine = make_engine(tiny())
    with capture_logs() as events:
        await engine.embed(embed("ab", "cde"))
        await engine.stop()
    (event,) = events
    assert (event["event"], event["rows"], event["tokens"]) == ("batch.completed", 2, 5)


async def test_interactive_requests_overtake_bulk_ones(make_engine, tiny, soon):
    """A later interactive request overtakes a bulk request, even in the middle of it."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    bulk = asyncio.create_task(engine.embed(embed(*"abcd", priority="bulk")))
    await model.began()
    search = asyncio.create_task(engine.embed(embed("x")))
    await soon(lambda: rows_waiting(engine) == 1)
    model.gate.set()
    await asyncio.gather(bulk, search)
    assert model.order == [*"axbcd"]


async def test_peers_take_turns(make_engine, tiny, soon):
    """A peer with many texts does not hold up a peer with one, and the status lists both."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    tasks = [asyncio.create_task(engine.embed(embed("#"), "first"))]
    await model.began()
    tasks += [asyncio.create_task(engine.embed(embed(*"abc"), "many"))]
    tasks += [asyncio.create_task(engine.embed(embed("x"), "one"))]
    await soon(lambda: rows_waiting(engine) == 4)
    peers = engine.status()["queue"]["interactive"]["peers"]
    assert {peer: load["rows"] for peer, load in peers.items()} == {"many": 3, "one": 1}
    model.gate.set()
    await asyncio.gather(*tasks)
    assert model.order == [*"#axbc"]


async def test_a_request_that_expires_is_dropped_before_it_is_computed(make_engine, tiny):
    """A waiting request fails with `DeadlineExceeded` at its deadline and is never computed."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    running = asyncio.create_task(engine.embed(embed("a")))
    await model.began()
    with pytest.raises(DeadlineExceeded, match=r"not finished within 0\.05 s"):
        await engine.embed(embed("late", timeout_ms=50))
    assert rows_waiting(engine) == 0
    model.gate.set()
    await running
    assert model.order == ["a"]


async def test_a_request_that_cannot_be_done_in_time_is_refused_at_once(make_engine, tiny, soon):
    """A request that cannot finish in time, going by recent costs, is rejected at once."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    running = asyncio.create_task(engine.embed(embed(*"abcdefghijklmnopqrstuvwxyz")))
    await model.began()
    with pytest.raises(DeadlineExceeded, match="estimated wait"):
        await engine.embed(embed("x", timeout_ms=5))
    model.gate.set()
    await running


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
async def test_what_would_begin_too_late_is_not_tokenized(make_engine, tiny, lane):
    """Texts are not tokenized if the process's backlog in that lane makes them start too late."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    backlog = [embed(*"abcdefghijklmnopqrstuvwxyz", priority=lane)]
    running = [asyncio.create_task(engine.embed(each, Peer(1, 1, 1))) for each in backlog]
    await model.began()
    tokenize, tokenized = model.tokenize, []
    model.tokenize = lambda texts: tokenized.extend(texts) or tokenize(texts)
    for late in (embed("x", timeout_ms=5, priority=lane), embed("y", timeout_ms=1, priority=lane)):
        with pytest.raises(DeadlineExceeded, match="estimated wait"):
            await engine.embed(late, Peer(1, 1, 1))
    assert tokenized == []
    soon = embed("z", timeout_ms=5, priority="bulk" if lane == "interactive" else "interactive")
    with pytest.raises(DeadlineExceeded, match=r"not finished within|estimated wait"):
        await engine.embed(soon, Peer(1, 1, 1))
    assert tokenized == ["z"]
    model.gate.set()
    await asyncio.gather(*running)


@pytest.mark.parametrize(("tokenizing", "in_time"), [(9.9, False), (9.5, True)])
async def test_what_tokenizing_took_is_gone_from_a_request_s_time(
    make_engine, tiny, tokenizing, in_time
):
    """Tokenizing uses up a request's time: computing these rows takes between 0.1 and 0.5 s."""
    now, model = [0.0], tiny()
    engine = make_engine(model, clock=lambda: now[0])
    tokenize = model.tokenize

    def slow(texts):
        now[0] += tokenizing
        return tokenize(texts)

    model.tokenize = slow
    request = embed(*map(str, range(1_000, 1_300)), timeout_ms=10_000)
    if in_time:
        assert (await engine.embed(request)).answer.rows == 300
    else:
        with pytest.raises(DeadlineExceeded, match=r"exceeds the 0\.1 s"):
            await engine.embed(request)


async def test_what_waits_is_counted_with_its_texts_and_results(make_engine, tiny, soon):
    """Waiting bytes include tokens, the texts they came from, and the vectors to come."""
    model = tiny(name="wide", dimensions=1_000)
    engine = make_engine(model)
    model.gate.clear()
    asking = asyncio.create_task(engine.embed(embed("first")))
    await model.began()
    more = asyncio.create_task(engine.embed(embed("x" * 10_000, "y" * 20_000)))
    await soon(lambda: rows_waiting(engine) == 2)
    waiting = engine.status()["queue"]["interactive"]
    least = 2 * (15_000 + 4 * 1_000) + 16 * 2 * 32
    assert (waiting["tokens"], waiting["peers"]["None"]["bytes"]) == (64, waiting["bytes"])
    assert least < waiting["bytes"] < least + 2 * 1_024
    assert waiting["cost_ms"] == 2 * CostModel().microseconds(32) / 1_000
    for task in (asking, more):
        task.cancel()
    model.gate.set()
    await asyncio.gather(asking, more, return_exceptions=True)
    assert engine.status()["queue"]["interactive"]["bytes"] == 0


async def test_a_request_is_told_where_its_time_went(make_engine, tiny, soon):
    """Timings cover tokenizing, queueing, and from the first row's start to the last row's end."""
    now, model = [0.0], tiny(holds="#")
    engine = make_engine(model, clock=lambda: now[0])
    model.gate.clear()
    running = asyncio.create_task(engine.embed(embed("#")))
    await model.began()
    tokenize, forward = model.tokenize, model.forward

    def slow(step, seconds):
        def slowed(what):
            now[0] += seconds
            return step(what)

        return slowed

    model.tokenize, model.forward = slow(tokenize, 2.0), slow(forward, 4.0)
    asking = asyncio.create_task(engine.embed(embed("ab", "cde", "fghi")))
    await soon(lambda: rows_waiting(engine) == 3)
    now[0] += 5.0
    model.gate.set()
    with capture_logs() as events:
        timings = (await asking).answer.timings
        engine.notes.flush()
    assert timings.to_map() == {
        "tokenize_ms": 2_000, "queue_ms": 5_000, "compute_ms": 12_000, "total_ms": 19_000,
        "batch_rows": 3, "batch_tokens": 9, "cached_rows": 0, "shared_rows": 0,
    }  # fmt: skip
    event = next(event for event in events if event.get("rows") == 3)
    assert (event["queue_ms"], event["compute_ms"]) == (5_000, 12_000)
    assert (await running).answer.timings.queue_ms == 0


async def test_a_request_is_told_of_its_largest_batch(make_engine, tiny, soon):
    """A request reports its largest batch; events and statistics record batches by lane."""
    model = tiny(holds="#")
    engine = make_engine(model)
    model.gate.clear()
    running = asyncio.create_task(engine.embed(embed("#")))
    await model.began()
    asking = [
        asyncio.create_task(engine.embed(embed(*texts, priority="bulk"), peer))
        for texts, peer in ((map(str, range(10, 28)), "x"), (["abc", "def"], "y"))
    ]
    await soon(lambda: rows_waiting(engine, "bulk") == 20)
    model.gate.set()
    with capture_logs() as events:
        first, second = [result.answer.timings for result in await asyncio.gather(*asking)]
        await running
        engine.notes.flush()
    assert (first.batch_rows, first.batch_tokens) == (16, 14 * 2 + 2 * 3)
    assert (second.batch_rows, second.batch_tokens) == (16, 14 * 2 + 2 * 3)
    names = ("lane", "model", "peers", "rows", "tokens")
    assert [tuple(event[name] for name in names) for event in events] == [
        ("interactive", "tiny", 1, 1, 1),
        ("bulk", "tiny", 2, 16, 34),
        ("bulk", "tiny", 1, 4, 8),
    ]
    batches = engine.statistics.to_map()["since_start"]["batches"]
    assert batches["bulk"]["rows"]["count"] == 2
    assert batches["interactive"]["rows"]["count"] == 1


async def test_a_batch_that_ends_with_a_request_that_left_is_told_of(make_engine, tiny, soon):
    """A batch whose remaining rows are dropped by a cancelled request is still logged."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    bulk = asyncio.create_task(engine.embed(embed("a", "b", "c", priority="bulk")))
    await model.began()
    search = asyncio.create_task(engine.embed(embed("s")))
    await soon(lambda: rows_waiting(engine) == 1)
    first, model.gate = model.gate, threading.Event()
    first.set()
    await model.began()
    with capture_logs() as events:
        bulk.cancel()
        await asyncio.gather(bulk, return_exceptions=True)
        engine.notes.flush()
        assert [(event["lane"], event["rows"]) for event in events] == [("bulk", 3)]
        model.gate.set()
        await search
        engine.notes.flush()
    assert [(event["lane"], event["rows"]) for event in events[1:]] == [("interactive", 1)]


async def test_a_stopped_engine_has_no_threads(make_engine, tiny):
    """A stopped engine leaves neither inference threads nor any model's tokenizer threads."""
    models = tiny(name="one"), tiny(name="other")
    engine = make_engine(*models, threads=2)
    for model in models:
        await engine.embed(embed("x" * 9_000, "y" * 20_000, model=model.name))
    kinds = ("inference-", "tokenize-")
    assert [thread for thread in threading.enumerate() if thread.name.startswith(kinds)]
    await engine.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(kinds)]


async def test_an_estimate_is_that_of_the_largest_models(make_engine, tiny):
    """The memory estimate uses the widest vector and the longest row of any model."""
    models = tiny(name="wide", dimensions=9), tiny(name="long", max_tokens=99)
    assert make_engine(*models).estimator == MemoryEstimator(dimensions=9, max_tokens=99)


async def test_a_request_of_many_texts_gives_way_to_others(make_engine, tiny):
    """A request of many texts yields after the cache lookup and after preparing its rows."""
    engine, steps, seen = make_engine(tiny(), cache_bytes=10**7), itertools.count(), []

    def recording(call):
        def recorded(*args):
            seen.append(next(steps))
            return call(*args)

        return recorded

    engine._cache.recall = recording(engine._cache.recall)
    engine._costs["tiny"].microseconds = recording(engine._costs["tiny"].microseconds)
    engine._workers.submit = recording(engine._workers.submit)
    asking = asyncio.create_task(engine.embed(embed(*map(str, range(1_000, 1_300)))))
    while not asking.done():
        next(steps)
        await asyncio.sleep(0)  # once per iteration of the loop
    recalled, prepared, queued = seen
    assert recalled + 1 < prepared
    assert prepared + 1 < queued


async def test_users_take_turns_before_their_processes(make_engine, tiny, soon):
    """A user's texts do not wait behind those of all three processes of another user."""
    model = tiny(holds="#")
    engine = make_engine(model)
    model.gate.clear()
    tasks = [asyncio.create_task(engine.embed(embed("#"), Peer(1, 1, 1)))]
    await model.began()
    for pid, uid, texts in ((11, 1, "ab"), (12, 1, "cd"), (13, 1, "ef"), (21, 2, "xyz")):
        tasks.append(asyncio.create_task(engine.embed(embed(*texts), Peer(pid, uid, 5))))
    await soon(lambda: rows_waiting(engine) == 9)
    assert engine.status()["queue"]["interactive"]["peers"]["pid 11 (uid 1)"]["rows"] == 2
    model.gate.set()
    await asyncio.gather(*tasks)
    assert "".join(model.order) == "#axcyezbdf"


async def test_what_the_queue_did_not_take_is_counted_by_lane(make_engine, tiny):
    """Requests that the queue rejects are counted by lane and error code."""
    model = tiny()
    engine = make_engine(model, bounds=QueueLimits(rows=35, peer_share=1))
    model.gate.clear()
    running = asyncio.create_task(engine.embed(embed(*"abcdefghijklmnopqrstuvwxyz")))
    await model.began()
    for refused in (
        embed("late", timeout_ms=5), embed(*"ABCDEFGHIJKLMNOPQRST"),
        embed(*"ABCDEFGHIJKLMNOPQRSTUVWXYZ0", priority="bulk"),
    ):  # fmt: skip
        with pytest.raises((DeadlineExceeded, Overloaded, TooLarge)):
            await engine.embed(refused)
    model.gate.set()
    await running
    assert engine.statistics.to_map()["since_start"]["not_admitted"] == {
        "interactive": {"deadline_exceeded": 1, "overloaded": 1}, "bulk": {"too_large": 1},
    }  # fmt: skip


async def test_what_rows_cost_is_learned_from_those_that_are_computed(make_engine, tiny):
    """Costs in the status are learned from computed rows, but not from a forward that failed."""
    ticks = iter(range(10_000))
    model = tiny()
    engine = make_engine(model, clock=lambda: float(next(ticks)))
    before = engine.status()["costs"]["tiny"]
    with pytest.raises(BackendFailed):
        await engine.embed(embed("a!"))
    assert engine.status()["costs"]["tiny"] == before
    await engine.embed(embed("abc"))
    assert engine.status()["costs"]["tiny"]["fixed_ms"] > before["fixed_ms"]


async def test_what_a_row_costs_is_what_its_own_forward_took(make_engine, tiny):
    """A row's cost is its own forward, not its wait in a batch nor another model's rows."""
    now, model = [0.0], tiny()
    engine = make_engine(model, tiny(name="other"), clock=lambda: now[0])
    forward = model.forward

    def slow(row):
        now[0] += 1.0
        return forward(row)

    model.forward, expected = slow, CostModel()
    await engine.embed(embed("abc", "defgh", "ij"))
    for tokens in (3, 5, 2):
        expected.record(tokens, 1.0)
    costs = engine.status()["costs"]
    assert costs == {"tiny": expected.to_map(), "other": CostModel().to_map()}


async def test_a_row_costs_what_its_own_model_s_rows_do(make_engine, tiny, soon):
    """Waiting rows are charged by their own model's cost when models are used in turn."""
    now, slow, quick = [0.0], tiny(name="slow"), tiny(name="quick")
    engine = make_engine(slow, quick, clock=lambda: now[0])
    forward, learned = slow.forward, CostModel()

    def slowed(row):
        now[0] += 1.0
        return forward(row)

    slow.forward = slowed
    await engine.embed(embed("abc", model="slow"))
    learned.record(3, 1.0)
    quick.gate.clear()
    tasks = [asyncio.create_task(engine.embed(embed("#", model="quick"), "first"))]
    await quick.began()
    tasks += [
        asyncio.create_task(engine.embed(embed("defg", model=name), name))
        for name in ("slow", "quick")
    ]
    await soon(lambda: rows_waiting(engine) == 2)
    waiting = engine.status()["queue"]["interactive"]["peers"]
    costs = {peer: load["cost_ms"] for peer, load in waiting.items()}
    assert costs == {
        name: cost.microseconds(4) / 1_000
        for name, cost in (("slow", learned), ("quick", CostModel()))
    }
    quick.gate.set()
    await asyncio.gather(*tasks)


async def test_a_row_that_had_all_cores_says_nothing_of_what_rows_cost(make_engine, tiny):
    """A row that ran on all cores does not change the cost, since waiting rows will not."""
    ticks = iter(range(10_000))
    engine = make_engine(tiny(intra_op_threads=2), clock=lambda: float(next(ticks)))
    before = engine.status()["costs"]["tiny"]
    await engine.embed(embed("abc"))
    assert engine.status()["costs"]["tiny"] == before
