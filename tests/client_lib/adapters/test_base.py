"""What all adapters share: options, prompts, lanes and connections."""

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client_lib import BadRequest, Client, ClientClosed, UnknownModel
from client_lib.adapters.base import Embedder, Reranker

from .texts import TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture
def embedder(socket: str, opened: Callable[[Any], Any]) -> Embedder:
    made: Embedder = opened(Embedder(socket=socket))
    return made


def texts_by_lane(client: Client) -> Counter[str]:
    embeds = client.status()["statistics"]["since_start"]["requests"].get("embed", {})
    return Counter({lane: told["texts"] for lane, told in embeds.items()})


def test_texts_get_the_prompts_of_their_role(embedder: Embedder, client: Client) -> None:
    """Queries the model's "query", documents its "document"."""
    expected = client.encode("query: a text")
    assert np.array_equal(embedder.encode_query("a text"), expected)
    assert np.array_equal(embedder.encode_query(["a text"])[0], expected)
    passage = client.encode("passage: a text")
    assert np.array_equal(embedder.encode_document(["a text"])[0], passage)


async def test_asyncio_gets_the_same(embedder: Embedder) -> None:
    """The same vectors, by the running loop's connection."""
    queries = await embedder.aencode_query(TEXTS)
    documents = await embedder.aencode_document(TEXTS)
    assert np.array_equal(queries, embedder.encode_query(TEXTS))
    assert np.array_equal(documents, embedder.encode_document(TEXTS))
    await embedder.aclose()


def test_prompts_can_be_named(socket: str, client: Client, opened: Callable[[Any], Any]) -> None:
    """An option names another of the model's prompts; one that it has not is refused."""
    options = {"query_prompt_name": "document", "document_prompt_name": "plain"}
    embedder = opened(Embedder(socket=socket, **options))
    assert np.array_equal(embedder.encode_query("x"), client.encode("passage: x"))
    assert np.array_equal(embedder.encode_document("x"), client.encode("x"))
    unknown = opened(Embedder(socket=socket, query_prompt_name="title"))
    with pytest.raises(BadRequest, match="known: query, document, plain"):
        unknown.encode_query("x")


def test_a_model_without_prompts(daemon: Any, opened: Callable[[Any], Any]) -> None:
    """Texts go as they are."""
    embedder = opened(Embedder(socket=daemon.socket))
    with Client(daemon.socket) as client:
        assert np.array_equal(embedder.encode_query("x"), client.encode("x"))
        assert np.array_equal(embedder.encode_document("x"), client.encode("x"))


def test_options_of_vectors(socket: str, opened: Callable[[Any], Any]) -> None:
    """`dimensions` and `normalize` reach the daemon."""
    short = opened(Embedder(socket=socket, dimensions=8, normalize=False))
    vectors = short.encode_document(TEXTS)
    assert vectors.shape == (3, 8)
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1)


def test_no_texts_are_no_vectors(embedder: Embedder, socket: str) -> None:
    """Nor is anything ranked."""
    assert embedder.encode_document([]).tolist() == []
    assert Reranker(socket=socket).rank("a query", []) == ()


def test_documents_wait_for_queries(
    embedder: Embedder, socket: str, client: Client, opened: Callable[[Any], Any]
) -> None:
    """Documents go in the bulk lane unless they are told otherwise, queries never do."""
    before = texts_by_lane(client)
    embedder.encode_document(TEXTS)
    embedder.encode_query("a query")
    opened(Embedder(socket=socket, priority="interactive")).encode_document(["x", "y"])
    assert texts_by_lane(client) - before == {"bulk": 3, "interactive": 3}


def test_another_model_is_refused(socket: str, opened: Callable[[Any], Any]) -> None:
    """A daemon that does not serve the model that was named."""
    embedder = opened(Embedder(socket=socket, model="some-other"))
    with pytest.raises(UnknownModel, match="some-other"):
        embedder.encode_query("x")


def test_ranking_is_the_daemons(socket: str, client: Client, opened: Callable[[Any], Any]) -> None:
    """Best first, `top_n` of them."""
    reranker = opened(Reranker(socket=socket))
    expected = client.rerank("Who composed Carmen?", TEXTS).results
    assert reranker.rank("Who composed Carmen?", TEXTS) == expected
    assert reranker.rank("Who composed Carmen?", TEXTS, 1) == expected[:1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sockte": "/s"}, "sockte"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"priority": "urgent"}, "'interactive' or 'bulk'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    """When the adapter is made, before anything is sent."""
    with pytest.raises(ValueError, match=said):
        Embedder(**options)


def test_numbers_of_numpy_and_no_limit_are_taken() -> None:
    """And are what Python has for them."""
    options = {"dimensions": np.int64(3), "normalize": np.bool_(True), "timeout": np.float32(2)}
    made = Embedder(**options).model_dump()
    assert {name: made[name] for name in options} == {
        "dimensions": 3, "normalize": True, "timeout": 2.0,
    }  # fmt: skip
    assert [type(made[name]) for name in options] == [int, bool, float]
    for timeout in (None, float("inf")):
        assert Embedder(timeout=timeout).timeout == timeout


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_copy_connects_by_itself(embedder: Embedder, copied: Callable[[Any], Any]) -> None:
    """It has the options, and outlives what it was copied from."""
    expected = embedder.encode_query("x")
    other = copied(embedder)
    embedder.close()
    assert other.model_dump() == embedder.model_dump()
    assert np.array_equal(other.encode_query("x"), expected)
    other.close()


def _vector(embedder: Embedder, send: Any) -> None:
    send.send(embedder.encode_query("x").tolist())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: a fork beside threads
def test_a_forked_child_connects_by_itself(embedder: Embedder) -> None:
    """And leaves the parent's connection alone."""
    expected = embedder.encode_query("x").tolist()
    receive, send = multiprocessing.Pipe(duplex=False)
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=_vector, args=(embedder, send))
    child.start()
    assert receive.recv() == expected
    child.join()
    assert embedder.encode_query("x").tolist() == expected
    receive.close()
    send.close()


def connections_become(client: Client, number: int) -> bool:
    """Whether the daemon comes to have that many of this process; one is `client`'s own."""
    return any(connections(client) == number for _ in range(1000))


def connections(client: Client) -> int:
    peers = client.status()["peers"]
    return sum(peer["connections"] for peer in peers if peer["pid"] == os.getpid())


def test_every_event_loop_connects_by_itself(embedder: Embedder, client: Client) -> None:
    """One loop after the other; what belonged to a loop ends with it."""
    first = asyncio.run(embedder.aencode_query("x"))
    second = asyncio.run(embedder.aencode_query("x"))
    assert np.array_equal(first, second)
    assert connections_become(client, 1)


def test_tasks_share_the_loops_connection(embedder: Embedder, client: Client) -> None:
    """However many of them come at once."""

    async def all_at_once() -> None:
        await asyncio.gather(*[embedder.aencode_query(f"text {i}") for i in range(8)])
        assert connections_become(client, 2)

    asyncio.run(all_at_once())


def test_nobody_has_to_close(socket: str, client: Client) -> None:
    """What is dropped is closed: frameworks make adapters that no caller sees."""
    embedder = Embedder(socket=socket)
    embedder.encode_query("x")
    assert connections_become(client, 2)
    del embedder
    gc.collect()
    assert connections_become(client, 1)


async def test_nor_while_the_loop_goes_on(socket: str, client: Client) -> None:
    """A loop's connection ends with the adapter, too."""
    embedder = Embedder(socket=socket)
    await embedder.aencode_query("x")
    assert connections_become(client, 2)
    del embedder
    gc.collect()
    await asyncio.sleep(0)  # lets asyncio begin to close it
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert connections_become(client, 1)


async def test_a_closed_adapter_says_so(embedder: Embedder) -> None:
    """To threads and to tasks."""
    await embedder.aencode_query("x")
    await embedder.aclose()
    with pytest.raises(ClientClosed):
        await embedder.aencode_query("x")
    with pytest.raises(ClientClosed):
        embedder.encode_query("x")


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("chroma", "chromadb", "chroma"),
        ("lancedb", "lancedb", "lancedb"),
    ],
)
def test_a_missing_framework_is_told(module: str, package: str, extra: str) -> None:
    """With the extra that brings it."""
    code = f"import sys; sys.modules[{package!r}] = None; import client_lib.adapters.{module}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"ImportError: {package}" in done.stderr
    assert f"pip install 'sidecar[{extra}]'" in done.stderr
