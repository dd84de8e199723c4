"""OpenAI's own client, and requests as Cohere's and Jina's send them, against a real daemon."""

import asyncio
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from client_lib import Client

from ..daemon import Daemon
from ..later import Later
from .process import GatewayProcess

openai = Later("openai")
OpenAI = AsyncOpenAI = Any  # their classes

pytestmark = pytest.mark.slow

MODEL = "all-MiniLM-L6-v2"
TEXTS = ["how do I renew a passport", "ok", "", "Das Museum ist montags geschlossen. " * 20]


@pytest.fixture(scope="module", params=["tcp", "uds"])
def transport(
    request: pytest.FixtureRequest, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """How a client reaches a gateway in front of the real daemon: `base_url`, and `uds` or None."""
    path = tmp_path_factory.mktemp("gateway") / "http.sock"
    flags = ["--uds", str(path)] if request.param == "uds" else []
    with GatewayProcess(daemon.socket, *flags) as running:
        by_tcp = {"base_url": f"{running.address}/v1", "uds": None}
        by_uds = {"base_url": "http://sidecar/v1", "uds": str(path)}
        yield by_uds if request.param == "uds" else by_tcp


@pytest.fixture
def client(transport: dict[str, Any]) -> Iterator[OpenAI]:
    http = httpx2.Client(transport=httpx2.HTTPTransport(uds=transport["uds"], verify=False))
    with openai.OpenAI(
        base_url=transport["base_url"], api_key="any", http_client=http, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def make_async(transport: dict[str, Any]) -> Callable[[], AsyncOpenAI]:
    def make() -> AsyncOpenAI:
        http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=transport["uds"], verify=False)
        )
        return openai.AsyncOpenAI(
            base_url=transport["base_url"], api_key="any", http_client=http, max_retries=0
        )

    return make


@pytest.fixture(scope="module")
def vectors(daemon: Daemon) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vectors of `TEXTS` over the native protocol."""
    with Client(daemon.socket) as client:
        return client.encode(TEXTS)


def as_bytes(reply: Any) -> list[bytes]:
    return [np.asarray(each.embedding, np.float32).tobytes() for each in reply.data]


def test_vectors_are_the_protocols_to_the_byte(client: OpenAI, vectors: Any) -> None:
    """Vectors equal the native protocol's to the byte, as base64 (the default) and as floats."""
    expected = [vector.tobytes() for vector in vectors]
    by_default = client.embeddings.create(model=MODEL, input=TEXTS)
    as_numbers = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert as_bytes(by_default) == as_bytes(as_numbers) == expected


def test_base64_is_the_float32s_bytes(client: OpenAI, vectors: Any) -> None:
    """Base64 holds each vector's little-endian float32 bytes, in the order of the texts."""
    reply = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="base64")
    decoded = [b64decode(each.embedding) for each in reply.data]  # type: ignore[arg-type]
    assert decoded == [vector.tobytes() for vector in vectors]


def test_the_reply_is_openais(client: OpenAI) -> None:
    """The reply has OpenAI's objects, indexes, model and usage, plus the truncated texts."""
    reply = client.embeddings.create(model=MODEL, input=TEXTS, user="somebody")
    assert reply.object == "list"
    assert [(each.object, each.index) for each in reply.data] == [
        ("embedding", index) for index in range(len(TEXTS))
    ]
    assert reply.model == MODEL
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 4
    assert reply.model_extra == {"truncated": []}


def test_one_string_is_one_text(client: OpenAI, vectors: Any) -> None:
    """A single string gets one vector, and `dimensions` shortens it and rescales it to length 1."""
    reply = client.embeddings.create(model=MODEL, input=TEXTS[0])
    assert as_bytes(reply) == [vectors[0].tobytes()]
    short = client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=64)
    assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1, abs=1e-6)
    assert len(short.data[0].embedding) == 64


async def test_many_at_once_get_each_their_own(
    make_async: Callable[[], AsyncOpenAI], vectors: Any
) -> None:
    """A hundred concurrent requests of one async client each get their own vectors."""
    async with make_async() as client:
        picks = [index % len(TEXTS) for index in range(100)]
        replies = await asyncio.gather(
            *(client.embeddings.create(model=MODEL, input=TEXTS[pick]) for pick in picks)
        )
    expected = [[vectors[pick].tobytes()] for pick in picks]
    assert [as_bytes(reply) for reply in replies] == expected


def test_the_largest_batch_is_the_daemons(client: OpenAI, daemon: Daemon) -> None:
    """2 048 texts, OpenAI's maximum, are embedded; one more is refused with 413."""
    texts = [f"text {index % 50}" for index in range(2048)]
    with Client(daemon.socket) as direct:
        expected = direct.encode(texts[:50])
    reply = client.embeddings.create(model=MODEL, input=texts)
    assert as_bytes(reply) == [expected[index % 50].tobytes() for index in range(2048)]
    with pytest.raises(openai.APIStatusError, match="the limit is 2048") as caught:
        client.embeddings.create(model=MODEL, input=[*texts, "one more"])
    assert caught.value.status_code == 413


def test_errors_are_openais(client: OpenAI) -> None:
    """OpenAI's client raises errors by its own classes, with the field at fault."""
    with pytest.raises(openai.NotFoundError, match="all-MiniLM-L6-v2") as unknown:
        client.embeddings.create(model="text-embedding-3-small", input="a text")
    assert (unknown.value.code, unknown.value.param) == ("unknown_model", "model")
    assert unknown.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="send the text itself") as tokens:
        client.embeddings.create(model=MODEL, input=[[1, 2, 3]])
    assert tokens.value.param == "input[0]"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.embeddings.create(
            model=MODEL, input=["short", "long " * 600], extra_body={"truncate": False}
        )
    assert too_long.value.param == "input[1]"


def test_models_are_listed(client: OpenAI) -> None:
    """Models are listed by the names that requests use, with their task and verification."""
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "sidecar")
    assert model.model_extra is not None
    assert model.model_extra["task"] == "embed"
    assert model.model_extra["verified"]["cosine_min"] >= 0.99999


def test_the_request_id_finds_the_daemons_events(client: OpenAI, daemon: Daemon) -> None:
    """The request id of a reply is the trace id of the daemon's event, written soon after."""
    reply = client.embeddings.create(model=MODEL, input="a text with a trace")

    def is_there() -> bool:
        events = daemon.events("request.completed")
        return reply._request_id in {event.get("trace_id") for event in events}

    with Client(daemon.socket) as direct:
        assert any(is_there() or not direct.ping() for _ in range(1000))


DOCUMENTS = ["bread rises because of yeast", {"text": "passports are renewed at the office"}]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_rerank_is_coheres_and_jinas(client: OpenAI, version: str) -> None:
    """Both rerank routes answer best first, with exactly the fields that Cohere and Jina read."""
    url = client.base_url.copy_with(path=f"/{version}/rerank")
    body = {"model": MODEL, "query": TEXTS[0], "documents": DOCUMENTS, "top_n": 1}
    reply = client._client.post(str(url), json=body).json()
    assert set(reply) == {"id", "model", "method", "results", "usage", "meta", "truncated"}
    (hit,) = reply["results"]
    assert set(hit) == {"index", "relevance_score"}
    assert hit["index"] == 1
    assert reply["usage"]["total_tokens"] == reply["meta"]["tokens"]["input_tokens"] > 0
    assert reply["method"] == "embedding"


def test_documents_are_returned_where_asked(client: OpenAI, daemon: Daemon) -> None:
    """`return_documents` returns text objects, in the order and with the scores of the protocol."""
    url = client.base_url.copy_with(path="/v1/rerank")
    body = {"query": TEXTS[0], "documents": DOCUMENTS, "return_documents": True}
    reply = client._client.post(str(url), json=body).json()
    plain = [each if isinstance(each, str) else each["text"] for each in DOCUMENTS]
    with Client(daemon.socket) as direct:
        hits = direct.rerank(TEXTS[0], plain).results
    assert reply["results"] == [
        {
            "index": hit.index,
            "relevance_score": hit.relevance_score,
            "document": {"text": plain[hit.index]},
        }
        for hit in hits
    ]


def test_health_and_metrics_are_the_daemons(client: OpenAI) -> None:
    """Health is one word, and metrics come in the format that the monitor accepts."""
    health = client._client.get(str(client.base_url.copy_with(path="/health")))
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    url = str(client.base_url.copy_with(path="/metrics"))
    older = client._client.get(url)
    newer = client._client.get(url, headers={"accept": "application/openmetrics-text"})
    assert older.headers["content-type"].startswith("text/plain")
    assert newer.headers["content-type"].startswith("application/openmetrics-text")
    assert newer.text.endswith("# EOF\n")
    assert "sidecar_build_info" in older.text


def test_a_killed_daemon_costs_no_request(
    minilm_artifact: Path, tmp_path: Path, submit: Callable[..., Any]
) -> None:
    """A request in progress when the daemon is killed is answered by its successor."""
    with (
        Daemon(tmp_path, "--embedding-model", str(minilm_artifact)) as daemon,
        GatewayProcess(daemon.socket, "--timeout", "120") as gateway,
        httpx2.Client(base_url=gateway.address, timeout=120) as http,
    ):
        texts = [f"a text of some length, number {index}" for index in range(400)]
        asked = submit(http.post, "/v1/embeddings", json={"input": texts})
        with Client(daemon.socket) as direct:
            while direct.status()["requests"]["in_flight"] == 0:
                pass
        daemon.kill()
        assert http.get("/health").status_code == 503
        daemon.start()
        reply = asked.result()
        assert reply.status_code == 200
        assert len(reply.json()["data"]) == len(texts)
        assert http.get("/health").status_code == 200
