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
    return Counter({lane: counts["texts"] for lane, counts in embeds.items()})


def test_texts_get_the_prompts_of_their_role(embedder: Embedder, client: Client) -> None:
    """Queries get the model's query prompt, documents its document prompt."""
    expected = client.encode("query: a text")
    assert np.array_equal(embedder.encode_query("a text"), expected)
    assert np.array_equal(embedder.encode_query(["a text"])[0], expected)
    passage = client.encode("passage: a text")
    assert np.array_equal(embedder.encode_document(["a text"])[0], passage)


async def test_asyncio_gets_the_same(embedder: Embedder) -> None:
    """The asyncio methods return the same vectors as the blocking ones."""
    queries = await embedder.aencode_query(TEXTS)
    documents = await embedder.aencode_document(TEXTS)
    assert np.array_equal(queries, embedder.encode_query(TEXTS))
    assert np.array_equal(documents, embedder.encode_document(TEXTS))
    await embedder.aclose()


def test_prompts_can_be_named(socket: str, client: Client, opened: Callable[[Any], Any]) -> None:
    """Options select other prompts of the model, and an unknown one is refused."""
    options = {"query_prompt_name": "document", "document_prompt_name": "plain"}
    embedder = opened(Embedder(socket=socket, **options))
    assert np.array_equal(embedder.encode_query("x"), client.encode("passage: x"))
    assert np.array_equal(embedder.encode_document("x"), client.encode("x"))
    unknown = opened(Embedder(socket=socket, query_prompt_name="title"))
    with pytest.raises(BadRequest, match="known: query, document, plain"):
        unknown.encode_query("x")


def test_a_model_without_prompts(daemon: Any, opened: Callable[[Any], Any]) -> None:
    """A model without prompts gets texts unchanged."""
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
    """Empty inputs yield no vectors and no ranking."""
    assert embedder.encode_document([]).tolist() == []
    assert Reranker(socket=socket).rank("a query", []) == ()


def test_documents_wait_for_queries(
    embedder: Embedder, socket: str, client: Client, opened: Callable[[Any], Any]
) -> None:
    """Documents use the bulk lane unless configured otherwise, queries never do."""
    before = texts_by_lane(client)
    embedder.encode_document(TEXTS)
    embedder.encode_query("a query")
    opened(Embedder(socket=socket, priority="interactive")).encode_document(["x", "y"])
    assert texts_by_lane(client) - before == {"bulk": 3, "interactive": 3}


def test_another_model_is_refused(socket: str, opened: Callable[[Any], Any]) -> None:
    """Naming a model that the daemon does not serve raises `UnknownModel`."""
    embedder = opened(Embedder(socket=socket, model="some-other"))
    with pytest.raises(UnknownModel, match="some-other"):
        embedder.encode_query("x")


def test_ranking_is_the_daemons(socket: str, client: Client, opened: Callable[[Any], Any]) -> None:
    """`rank` returns the daemon's results, best first, limited by `top_n`."""
    reranker = opened(Reranker(socket=socket))
    expected = client.rerank("Who composed Carmen?", TEXTS).results
    assert reranker.rank("Who composed Carmen?", TEXTS) == expected
    assert reranker.rank("Who composed Carmen?", TEXTS, 1) == expected[:1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sockte": "/s"}, "sockte"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"priority": "urgent"}, "'interactive' or 'bulk'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    """An invalid option is named when the adapter is constructed."""
    with pytest.raises(ValueError, match=message):
        Embedder(**options)


def test_numbers_of_numpy_and_no_limit_are_taken() -> None:
    """NumPy values become Python ones, and a timeout may be None or infinite."""
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
    """A copy has the same options and its own connection, which outlives the original's."""
    expected = embedder.encode_query("x")
    other = copied(embedder)
    embedder.close()
    assert other.model_dump() == embedder.model_dump()
    assert np.array_equal(other.encode_query("x"), expected)
    other.close()


def _vector(embedder: Embedder, send: Any) -> None:
    send.send(embedder.encode_query("x").tolist())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 warns, given threads
def test_a_forked_child_connects_by_itself(embedder: Embedder) -> None:
    """A forked child opens its own connection and leaves the parent's intact."""
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
    """Whether this process's connections become `number`, `client`'s included."""
    return any(connections(client) == number for _ in range(1000))


def connections(client: Client) -> int:
    peers = client.status()["peers"]
    return sum(peer["connections"] for peer in peers if peer["pid"] == os.getpid())


def test_every_event_loop_connects_by_itself(embedder: Embedder, client: Client) -> None:
    """Each event loop has a connection, which is closed when the loop ends."""
    first = asyncio.run(embedder.aencode_query("x"))
    second = asyncio.run(embedder.aencode_query("x"))
    assert np.array_equal(first, second)
    assert connections_become(client, 1)


def test_tasks_share_the_loops_connection(embedder: Embedder, client: Client) -> None:
    """All tasks of an event loop share one connection."""

    async def all_at_once() -> None:
        await asyncio.gather(*[embedder.aencode_query(f"text {i}") for i in range(8)])
        assert connections_become(client, 2)

    asyncio.run(all_at_once())


def test_nobody_has_to_close(socket: str, client: Client) -> None:
    """Garbage collecting an adapter closes its connection."""
    embedder = Embedder(socket=socket)
    embedder.encode_query("x")
    assert connections_become(client, 2)
    del embedder
    gc.collect()
    assert connections_become(client, 1)


async def test_nor_while_the_loop_goes_on(socket: str, client: Client) -> None:
    """Garbage collecting an adapter closes the connection of a running event loop, too."""
    embedder = Embedder(socket=socket)
    await embedder.aencode_query("x")
    assert connections_become(client, 2)
    del embedder
    gc.collect()
    await asyncio.sleep(0)  # let asyncio start closing it
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert connections_become(client, 1)


async def test_a_closed_adapter_says_so(embedder: Embedder) -> None:
    """After `aclose`, both blocking and asyncio calls raise `ClientClosed`."""
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
    """Importing an adapter without its framework names the extra to install."""
    code = f"import sys; sys.modules[{package!r}] = None; import client_lib.adapters.{module}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"ImportError: {package}" in done.stderr
    assert f"pip install 'embedding-sidecar-client[{extra}]'" in done.stderr
