"""What adapters request from a scripted daemon: every option, in every call."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from client_lib import ClientClosed
from client_lib.adapters.base import Embedder, Reranker
from client_lib.wire.messages import Embed, Rerank

from ..fake_daemon import FakeDaemon

OPTIONS = {"model": "fake", "normalize": False, "dimensions": 3}


def fields(request: Any, names: Any) -> dict[str, Any]:
    return {name: getattr(request, name) for name in names}


async def test_every_option_reaches_the_daemon(
    fake: FakeDaemon, opened: Callable[[Any], Any]
) -> None:
    """All options reach the daemon from blocking and asyncio calls; queries are interactive."""
    prompts = {"query_prompt_name": "q", "document_prompt_name": "d"}
    embedder = opened(Embedder(socket=fake.socket, timeout=7, **prompts, **OPTIONS))
    queries = {**OPTIONS, "role": "query", "prompt_name": "q", "priority": "interactive"}
    documents = {**OPTIONS, "role": "document", "prompt_name": "d", "priority": "bulk"}
    embedder.encode_query(["a"])
    embedder.encode_document(["a"])
    await embedder.aencode_query(["a"])
    await embedder.aencode_document(["a"])
    requests = fake.wait_for(Embed, 4)
    assert [fields(request, queries) for request in requests] == [queries, documents] * 2
    assert all(0 < request.timeout_ms <= 7_000 for request in requests)
    await embedder.aclose()


async def test_the_daemon_chooses_what_is_left_open(
    fake: FakeDaemon, opened: Callable[[Any], Any]
) -> None:
    """Unset options are not sent, the timeout is 30 s, and documents may be interactive."""
    embedder = opened(Embedder(socket=fake.socket, priority="interactive"))
    await embedder.aencode_document(["a"])
    embedder.encode_document(["a"])
    left_open = dict.fromkeys([*OPTIONS, "prompt_name"])
    for request in fake.wait_for(Embed, 2):
        assert fields(request, left_open) == left_open
        assert (request.role, request.priority) == ("document", "interactive")
        assert 29_000 < request.timeout_ms <= 30_000
    await embedder.aclose()


async def test_rankings_are_of_the_model_that_was_named(
    fake: FakeDaemon, opened: Callable[[Any], Any]
) -> None:
    """Rankings use the given model and `top_n`, and empty inputs send no request."""
    reranker = opened(Reranker(socket=fake.socket, model="fake", timeout=7))
    texts = ["snow", "a cat", "cat"]
    assert [hit.index for hit in reranker.rank("a cat", texts, 2)] == [1, 2]
    assert [hit.index for hit in await reranker.arank("a cat", texts, 2)] == [1, 2]
    assert [hit.index for hit in reranker.rank("a cat", texts)] == [1, 2, 0]
    assert [hit.index for hit in await reranker.arank("a cat", texts)] == [1, 2, 0]
    assert reranker.rank("q", []) == await reranker.arank("q", []) == ()
    requests = fake.wait_for(Rerank, 4)
    assert [request.top_n for request in requests] == [2, 2, None, None]
    assert {(request.model, request.priority) for request in requests} == {("fake", "interactive")}
    assert all(0 < request.timeout_ms <= 7_000 for request in requests)
    assert len(fake.seen) == 4
    await reranker.aclose()


async def test_closing_ends_both_connections(fake: FakeDaemon) -> None:
    """`aclose` closes both connections, and later calls raise `ClientClosed`."""
    embedder = Embedder(socket=fake.socket)
    embedder.encode_query("a")
    await embedder.aencode_query("a")
    assert fake.connections == 2
    await embedder.aclose()
    await asyncio.to_thread(fake.wait_until_left)
    with pytest.raises(ClientClosed):
        embedder.encode_query("a")
    with pytest.raises(ClientClosed):
        await embedder.aencode_query("a")


def test_a_loop_that_has_ended_is_forgotten(fake: FakeDaemon, opened: Callable[[Any], Any]) -> None:
    """An ended event loop is released when the next one connects."""
    embedder = opened(Embedder(socket=fake.socket))
    loops = []

    async def ask() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await embedder.aencode_query("a")

    for _ in range(3):
        asyncio.run(ask())
    gc.collect()
    assert [loop() is None for loop in loops] == [True, True, False]
    asyncio.run(embedder.aclose())
