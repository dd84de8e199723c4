"""Equal rows are computed once for all who wait, and cached for later requests."""

import asyncio

import numpy as np
import pytest
from structlog.testing import capture_logs

from client_lib.wire.errors import BackendFailed, BadRequest
from client_lib.wire.messages import PRECISIONS, Embed, Rerank
from client_lib.wire.replies import RerankResult
from sidecar.models.rows import Row
from sidecar.serving.engine.collector import AT_ONCE, ResultCollectors
from sidecar.serving.postprocess import quantize
from sidecar.serving.scheduler.cost_model import CostModel
from sidecar.serving.scheduler.limits import QueueLimits

from ..conftest import PATIENCE


def embed(*texts, **fields):
    return Embed(id=1, input=texts, **fields)


def shared(engine):
    return engine.status()["cache"]["shared"]


async def asking(engine, request, soon, peer=None):
    """Send `request`, and return its task once its rows wait or run."""
    before = engine.status()["queue"]
    task = asyncio.create_task(engine.embed(request, peer))
    await soon(lambda: engine.status()["queue"] != before)
    return task


async def test_a_text_that_is_asked_twice_in_a_request_is_computed_once(make_engine, tiny):
    """A text repeated in a request is computed once, and every place gets its vector."""
    model = tiny()
    result = await make_engine(model, threads=2).embed(embed("a", "b", "a", "a"))
    assert sorted(model.order) == ["a", "b"]
    np.testing.assert_allclose(result.vectors, [model.vector(text) for text in "abaa"], atol=1e-6)
    assert result.answer.timings.shared_rows == 2
    assert result.answer.tokens == 4


async def test_requests_share_a_row_that_is_being_computed(make_engine, tiny, soon):
    """Requests share a running row, and the queue time of later ones is never negative."""
    model = tiny()
    engine = make_engine(model, threads=2)
    model.gate.clear()
    first = asyncio.create_task(engine.embed(embed("abc")))
    await model.began()
    others = [asyncio.create_task(engine.embed(embed("abc"), peer)) for peer in "xyz"]
    await asyncio.sleep(0)
    model.gate.set()
    results = await asyncio.gather(first, *others)
    assert model.order == ["abc"]
    assert len({result.vectors.tobytes() for result in results}) == 1
    assert shared(engine) == 3
    assert [result.answer.timings.shared_rows for result in results] == [0, 1, 1, 1]
    assert all(result.answer.timings.queue_ms >= 0 for result in results)


async def test_a_text_that_very_many_wait_for_is_handed_out_bit_by_bit(make_engine, tiny, soon):
    """A row with very many waiters is computed once and reaches all of them, late ones included."""
    assert AT_ONCE <= 500
    model = tiny()
    engine = make_engine(model, clock=lambda: 0.0)

    async def ask_again():
        first = await engine.embed(embed("a"))
        assert not many.done()
        return first, await engine.embed(embed("a"))

    model.gate.clear()
    again = asyncio.create_task(ask_again())
    await model.began()
    many = asyncio.gather(*(engine.embed(embed("a"), "another") for _ in range(4 * AT_ONCE)))
    await soon(lambda: len(engine._collectors) == 4 * AT_ONCE + 1)
    model.gate.set()
    async with asyncio.timeout(20):
        results = [*await many, *await again]
    assert model.order == ["a"]
    assert {result.vectors.tobytes() for result in results} == {results[0].vectors.tobytes()}
    assert engine.status()["queue"]["interactive"]["rows"] == 0
    assert shared(engine) == 4 * AT_ONCE + 1
    learned = CostModel()
    learned.record(1, 0.0)
    assert engine.status()["costs"]["tiny"] == learned.to_map()
    batches = engine.statistics.to_map()["since_start"]["batches"]
    assert batches["interactive"]["rows"]["count"] == 1


async def test_equal_texts_of_one_request_are_one_row(make_engine, tiny):
    """Equal texts of a request take up one row of the queue and of a batch."""
    model = tiny()
    engine = make_engine(model, bounds=QueueLimits(rows=6))
    result = await engine.embed(embed("a", "b", "a", "a", "b"))
    assert model.order == ["a", "b"]
    a, b = (vector.tobytes() for vector in result.vectors[:2])
    assert [vector.tobytes() for vector in result.vectors] == [a, b, a, a, b]
    assert result.answer.rows == 5
    assert result.answer.timings.shared_rows == shared(engine) == 3
    assert result.answer.timings.batch_rows == 2


async def test_many_equal_texts_of_many_requests_are_handed_out_bit_by_bit(
    make_engine, tiny, soon, monkeypatch
):
    """Handing out a row yields to the loop, whether its places belong to one request or several."""
    given = []
    deliver = ResultCollectors.deliver

    def counted(self, row):
        delivery = deliver(self, row)
        given.append(delivery.shared)
        return delivery

    monkeypatch.setattr(ResultCollectors, "deliver", counted)
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    first = asyncio.create_task(engine.embed(embed("a")))
    await model.began()
    texts = ["a"] * (AT_ONCE - 1)
    others = [asyncio.create_task(engine.embed(embed(*texts), peer)) for peer in "xyz"]
    await soon(lambda: len(engine._collectors) == 4)
    model.gate.set()
    await asyncio.gather(first, *others)
    assert given == [AT_ONCE - 1, AT_ONCE - 1, AT_ONCE - 1]
    assert shared(engine) == 3 * (AT_ONCE - 1)


async def test_what_fails_equal_texts_names_the_first(make_engine, tiny):
    """A failure of equal texts is reported with the index of the first."""
    with pytest.raises(BackendFailed) as failed:
        await make_engine(tiny()).embed(embed("a", "b!", "b!"))
    assert failed.value.index == 1


async def test_rows_that_still_wait_are_settled_too(make_engine, tiny, soon):
    """A result also settles equal rows that still wait in another lane, and frees their room."""
    model = tiny(holds="#")
    engine = make_engine(model)
    model.gate.clear()
    held = asyncio.create_task(engine.embed(embed("#")))
    await model.began()
    bulk = await asking(engine, embed("x", "abc", priority="bulk"), soon, peer="b")
    search = await asking(engine, embed("abc"), soon, peer="s")
    model.gate.set()
    await asyncio.gather(held, bulk, search)
    assert model.order == ["#", "abc", "x"]
    assert engine.status()["queue"]["bulk"]["rows"] == 0


async def test_a_batch_is_told_of_once_whoever_computed_its_rows(make_engine, tiny, soon):
    """A batch is logged once, even if its last row was computed in the other lane."""
    model = tiny(holds="x")
    engine = make_engine(model)
    model.gate.clear()
    bulk = asyncio.create_task(engine.embed(embed("x", "abc", priority="bulk")))
    await model.began()
    search = await asking(engine, embed("abc", "d"), soon)
    with capture_logs() as events:
        model.gate.set()
        await asyncio.gather(bulk, search)
        await engine.embed(embed("later"))
        engine.notes.flush()
    assert model.order == ["x", "abc", "d", "later"]
    logged = [(event["lane"], event["rows"]) for event in events]
    assert logged == [("bulk", 2), ("interactive", 2), ("interactive", 1)]


async def test_whoever_leaves_takes_nothing_from_the_others(make_engine, tiny, soon):
    """Cancelling the request whose row is running does not take the row from others."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    first = asyncio.create_task(engine.embed(embed("abc")))
    await model.began()
    second = asyncio.create_task(engine.embed(embed("abc")))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    model.gate.set()
    async with asyncio.timeout(PATIENCE):
        result = await second
    assert model.order == ["abc"]
    np.testing.assert_allclose(result.vectors, [model.vector("abc")], atol=1e-6)


async def test_a_row_whose_asker_left_before_its_forward_is_the_others_own(make_engine, tiny, soon):
    """A row is still computed for other requests if the first is cancelled before its forward."""
    model = tiny(holds="#")
    engine = make_engine(model)
    model.gate.clear()
    held = asyncio.create_task(engine.embed(embed("#")))
    await model.began()
    first = await asking(engine, embed("abc"), soon, peer="x")
    second = await asking(engine, embed("abc"), soon, peer="y")
    first.cancel()
    await asyncio.wait([first])
    model.gate.set()
    await asyncio.gather(held, second)
    assert model.order == ["#", "abc"]


async def test_a_failure_is_every_asker_s(make_engine, tiny):
    """Equal rows fail together, each request by its own index, after a single retry."""
    model = tiny()
    engine = make_engine(model)
    model.gate.clear()
    asks = [embed("a!"), embed("ok", "a!")]
    tasks = [asyncio.create_task(engine.embed(ask)) for ask in asks]
    await model.began()
    model.gate.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [failure.index for failure in failures] == [0, 1]
    assert all(isinstance(failure, BackendFailed) for failure in failures)
    assert model.order.count("a!") == 2


async def test_a_failure_that_very_many_wait_for_is_told_to_all(make_engine, tiny, soon):
    """A failure reaches all its waiters, however many, and a later request is computed again."""
    engine = make_engine(model := tiny())
    model.gate.clear()
    tasks = [asyncio.create_task(engine.embed(embed("a!")))]
    await model.began()
    tasks += [asyncio.create_task(engine.embed(embed("b", "a!"))) for _ in range(2 * AT_ONCE + 1)]
    await soon(lambda: engine.status()["queue"]["interactive"]["rows"] == 4 * AT_ONCE + 2)
    model.gate.set()
    async with asyncio.timeout(PATIENCE):
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert (type(first), first.index) == (BackendFailed, 0)
    assert {(type(each), each.index) for each in others} == {(BackendFailed, 1)}
    with pytest.raises(BackendFailed):
        await engine.embed(embed("a!"))
    assert model.order.count("a!") == 4
    assert engine.status()["queue"]["interactive"]["rows"] == 0


async def test_pairs_that_are_divided_otherwise_are_other_rows(make_engine, tiny):
    """Pairs with the same tokens but another boundary neither share a row nor a cached result."""
    model = tiny(task="rerank")

    def tokenize(pairs):
        rows = []
        for query, document in pairs:
            ids = np.frombuffer(f"{query}{document}".encode(), np.uint8).astype(np.int64)
            types = np.repeat(np.array([0, 1]), [len(query), len(document)])
            rows.append(Row(ids, types, truncated=False))
        return rows

    model.tokenize = tokenize
    model.forward = lambda row: np.array([row.token_types.sum()], np.float32)
    engine = make_engine(model, cache_bytes=10_000)
    asks = [
        Rerank(id=1, query=query, documents=(rest,)) for query, rest in (("ab", "cd"), ("a", "bcd"))
    ]
    for _ in range(2):
        results = await asyncio.gather(*(engine.rerank(ask) for ask in asks))
        assert [result.results for result in results] == [
            (RerankResult(0, 2.0),),
            (RerankResult(0, 3.0),),
        ]


async def test_vectors_that_are_not_scaled_are_other_rows(make_engine, tiny):
    """Vectors that are not normalised, or are another model's, are never shared."""
    one, other = tiny(name="one"), tiny(name="other")
    other.forward = lambda row: np.full(8, len(row.ids), np.float32)
    engine = make_engine(one, other, cache_bytes=10_000)
    for _ in range(2):
        unit, raw, third = await asyncio.gather(
            engine.embed(embed("abc", model="one")),
            engine.embed(embed("abc", model="one", normalize=False)),
            engine.embed(embed("abc", model="other", normalize=False)),
        )
        np.testing.assert_allclose(unit.vectors, [one.vector("abc")], atol=1e-6)
        np.testing.assert_allclose(raw.vectors, [tiny(normalize=False).vector("abc")], atol=1e-6)
        assert third.vectors.tolist() == [[3.0] * 8]
    assert shared(engine) == 0


async def test_other_dimensions_are_another_row(make_engine, tiny):
    """Requests for different dimensions do not share a row."""
    model = tiny()
    engine = make_engine(model, cache_bytes=10_000)
    wide, narrow = await asyncio.gather(
        engine.embed(embed("abc")), engine.embed(embed("abc", dimensions=3))
    )
    assert (wide.vectors.shape, narrow.vectors.shape) == ((1, 8), (1, 3))
    assert shared(engine) == 0


async def test_what_is_cached_is_not_computed_again(make_engine, tiny):
    """A cached row is not computed again and has the same bytes, alone or beside new texts."""
    model = tiny()
    engine = make_engine(model, cache_bytes=10_000)
    first = await engine.embed(embed("abc"))
    again = await engine.embed(embed("abc"))
    mixed = await engine.embed(embed("new", "abc", "other"))
    assert sorted(model.order) == ["abc", "new", "other"]
    assert first.vectors.tobytes() == again.vectors.tobytes() == mixed.vectors[1].tobytes()
    assert [r.answer.timings.cached_rows for r in (first, again, mixed)] == [0, 1, 1]
    assert mixed.answer.tokens == 3 + 3 + 5
    np.testing.assert_allclose(
        mixed.vectors, [model.vector(text) for text in ("new", "abc", "other")], atol=1e-6
    )


async def test_a_request_of_which_all_is_known_waits_for_nothing(make_engine, tiny):
    """A fully cached request spends its time on tokenizing alone."""
    now, model = [100.0], tiny()
    engine = make_engine(model, cache_bytes=10_000, clock=lambda: now[0])
    await engine.embed(embed("abc", "d"))
    tokenize = model.tokenize

    def slow(texts):
        now[0] += 2.0
        return tokenize(texts)

    model.tokenize = slow
    result = await engine.embed(embed("d", "abc"))
    assert result.answer.timings.to_map() == {
        "tokenize_ms": 2_000, "queue_ms": 0, "compute_ms": 0, "total_ms": 2_000,
        "batch_rows": 0, "batch_tokens": 0, "cached_rows": 2, "shared_rows": 0,
    }  # fmt: skip
    expected = [model.vector(text) for text in ("d", "abc")]
    np.testing.assert_allclose(result.vectors, expected, atol=1e-6)


async def test_one_row_serves_every_precision(make_engine, tiny):
    """One cached float32 row serves every precision with the same bytes, alone or beside others."""
    model = tiny()
    engine = make_engine(model, cache_bytes=10_000)
    vectors = (await engine.embed(embed("abc"))).vectors
    for precision in PRECISIONS:
        alone = await engine.embed(embed("abc", precision=precision))
        among = await engine.embed(embed("x", "abc", precision=precision))
        expected = quantize(vectors, precision)
        assert bytes(alone.to_map()["vectors"]["data"]) == expected.tobytes()
        assert bytes(among.to_map()["vectors"]["data"])[expected.nbytes :] == expected.tobytes()
        assert alone.to_map()["vectors"]["shape"] == expected.shape
        assert alone.to_map()["vectors"]["dtype"] == expected.dtype.name
    assert model.order == ["abc", "x"]


@pytest.mark.parametrize("precision", ["int8", "uint8"])
async def test_integers_are_for_vectors_of_length_1(make_engine, tiny, precision):
    """Integer precisions are rejected unless vectors are normalised, by request or by default."""
    for model, request in (
        (tiny(), embed("a", precision=precision, normalize=False)),
        (tiny(normalize=False), embed("a", precision=precision)),
    ):
        with pytest.raises(BadRequest, match="set normalize to true"):
            await make_engine(model).embed(request)
    result = await make_engine(tiny(normalize=False)).embed(
        embed("a", precision=precision, normalize=True)
    )
    assert result.to_map()["vectors"]["dtype"] == precision


async def test_a_cached_request_needs_no_room_in_the_queue(make_engine, tiny):
    """Only rows that have to be computed count against the queue's limits."""
    model = tiny()
    engine = make_engine(model, cache_bytes=10_000, bounds=QueueLimits(rows=2))
    await engine.embed(embed("a"))
    await engine.embed(embed("b"))
    result = await engine.embed(embed("a", "b", "c"))
    assert result.vectors.shape == (3, 8)


async def test_a_failure_names_the_text_where_others_were_cached(make_engine, tiny):
    """A failure reports the text's index in the request, even if other texts were cached."""
    engine = make_engine(tiny(), cache_bytes=10_000)
    await engine.embed(embed("a", "b"))
    with pytest.raises(BackendFailed) as failed:
        await engine.embed(embed("a", "b", "c!"))
    assert failed.value.index == 2


async def test_a_failure_is_not_cached(make_engine, tiny):
    """A failed row is not cached: the next request tries it again."""
    model = tiny()
    engine = make_engine(model, cache_bytes=10_000)
    for _ in range(2):
        with pytest.raises(BackendFailed):
            await engine.embed(embed("a!"))
    assert model.order.count("a!") == 4


async def test_reranking_uses_the_cache(make_engine, tiny):
    """Reranking the same pairs again is served from the cache."""
    model = tiny(task="rerank")
    engine = make_engine(model, cache_bytes=10_000)
    request = Rerank(id=1, query="ab", documents=("xa", "ab"))
    first, again = await engine.rerank(request), await engine.rerank(request)
    assert first.results == again.results
    assert len(model.order) == again.answer.timings.cached_rows == 2
