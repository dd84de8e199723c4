"""The application in the test process, in front of a scripted daemon."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from client_lib.wire.errors import BadRequest, Overloaded, UnknownModel
from client_lib.wire.messages import Cancel, Embed, Rerank
from sidecar.gateway.app import Gateway
from sidecar.gateway.settings import Listener, Settings

from ..client_lib.fake_daemon import Act, FakeDaemon, answer, first

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Open = Callable[..., Any]


@pytest.fixture
def opened(fake: FakeDaemon) -> Open:
    """Open a client of a gateway with the given settings, in front of the scripted daemon."""

    @asynccontextmanager
    async def open_(**settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
        with socket.socket() as unused:
            listener = Listener(socket=unused, address="none")
            gateway = Gateway(Settings(daemon=fake.socket, **settings), listener)
            transport = httpx2.ASGITransport(app=gateway.app())
            async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:
                yield http
            await gateway.close()
            await asyncio.to_thread(fake.wait_until_left)  # both connections are closed

    return open_


async def heard(fake: FakeDaemon, kind: Any, count: int = 1) -> list[Any]:
    return await asyncio.to_thread(fake.wait_for, kind, count)


async def test_all_that_is_asked_reaches_the_daemon(opened: Open, fake: FakeDaemon) -> None:
    """Every option of each route reaches the daemon, with the trace and the remaining time."""
    shared = {"model": "fake", "truncate": False, "priority": "bulk"}
    embed = {
        **shared, "dimensions": 4, "prompt_name": "query", "role": "query", "normalize": True,
    }  # fmt: skip
    rerank = {**shared, "query": "q", "top_n": 2}
    async with opened(timeout=7) as http:
        for path, body in (
            ("/v1/embeddings", {**embed, "input": ["a", "b"]}),
            ("/v1/rerank", {**rerank, "documents": ["a", {"text": "b"}]}),
            ("/v2/rerank", {**rerank, "documents": ["a", {"text": "b"}]}),
        ):
            reply = await http.post(path, json=body, headers={"traceparent": TRACE})
            assert reply.status_code == 200, path
    embeds, reranks = await heard(fake, Embed), await heard(fake, Rerank, 2)
    assert {name: getattr(embeds[0], name) for name in embed} == embed
    assert embeds[0].input == ("a", "b")
    for request in reranks:
        assert {name: getattr(request, name) for name in rerank} == rerank
        assert request.documents == ("a", "b")
    for request in fake.seen:
        assert request.traceparent == TRACE
        assert 0 < request.timeout_ms <= 7_000


async def test_reading_takes_of_a_requests_time(opened: Open, fake: FakeDaemon) -> None:
    """The time spent reading a body is subtracted from the timeout that the daemon gets."""

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"input": '
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await asyncio.Event().wait()
        yield b'"a"}'

    async with opened() as http:
        headers = {"content-type": "application/json; charset=utf-8"}
        reply = await http.post("/v1/embeddings", content=slowly(), headers=headers)
    assert reply.status_code == 200
    (request,) = await heard(fake, Embed)
    assert request.timeout_ms <= 30_000 - 20


async def test_so_many_are_asked_at_a_time(opened: Open, fake: FakeDaemon) -> None:
    """Beyond `max_in_flight`, a request is sent once another ends, even by cancellation."""
    fake.script = lambda request: Act.SILENCE if isinstance(request, Embed) else answer(request)
    async with opened(max_in_flight=2) as http:
        tasks = []
        for text in ("0", "1", "2"):
            post = http.post("/v1/embeddings", json={"input": text})
            tasks.append(asyncio.create_task(post))
            if text == "1":
                await heard(fake, Embed, 2)
        for _ in range(100):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await heard(fake, Embed, 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await heard(fake, Cancel, 3)
    assert [type(request) for request in fake.seen][:4] == [Embed, Embed, Cancel, Embed]


async def test_a_turn_ends_with_its_request(opened: Open, fake: FakeDaemon) -> None:
    """A request that was answered or refused frees its slot for the next one."""
    async with opened(max_in_flight=1, timeout=10) as http:
        for error in (UnknownModel("no"), Overloaded("full"), BadRequest("no", index=0)):
            fake.script = first(error)
            codes = [
                (await http.post("/v1/embeddings", json={"input": "a"})).status_code
                for _ in range(3)
            ]
            assert codes[-1] == 200


async def test_which_text_was_wrong_is_told_by_its_field(opened: Open, fake: FakeDaemon) -> None:
    """`param` names the faulty text, `input[i]` or `documents[i]`, or is null without an index."""
    bodies = {"embeddings": {"input": ["a"] * 3}, "rerank": {"query": "q", "documents": ["a"] * 3}}
    async with opened() as http:
        for index, params in ((2, ["input[2]", "documents[2]"]), (0, ["input[0]", "documents[0]"]),
                              (None, [None, None])):  # fmt: skip
            got = []
            for path, body in bodies.items():

                def refuse(_: Any, index: int | None = index) -> Any:
                    raise BadRequest("no", index=index)

                fake.script = refuse
                reply = await http.post(f"/v1/{path}", json=body)
                got.append(reply.json()["error"]["param"])
            assert got == params


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "prometheus"),
        ("text/plain", "prometheus"),
        ("application/openmetrics-text; version=1.0.0,text/plain;q=0.5", "openmetrics"),
    ],
)
async def test_metrics_come_as_the_monitor_takes_them(opened: Open, accept: str, form: str) -> None:
    """Metrics come in the format that `Accept` asks for, with the daemon's own content type."""
    async with opened() as http:
        reply = await http.get("/metrics", headers={"accept": accept})
    assert (reply.text, reply.headers["content-type"]) == (f"fake_{form} 1\n", "text/plain")


async def test_documents_are_repeated_where_that_is_asked(opened: Open) -> None:
    """Only `return_documents` adds the documents, and only those of the results."""
    body = {"query": "a cat", "documents": ["snow", {"text": "a cat"}], "top_n": 1}
    async with opened() as http:
        for asked, expected in ((True, {"document": {"text": "a cat"}}), (False, {}), (None, {})):
            options = {} if asked is None else {"return_documents": asked}
            reply = await http.post("/v1/rerank", json={**body, **options})
            hit = {"index": 1, "relevance_score": 2.0}
            assert reply.json()["results"] == [hit | expected]


async def test_how_a_daemon_is_that_is_not_there_is_known_at_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health, metrics and models answer 503 after a single attempt to connect."""
    looks = []

    def look(path: str, trust: Any) -> Any:
        looks.append(path)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("client_lib.aio_reconnect.connect", look)
    async with opened() as http:
        for path in ("/health", "/metrics", "/v1/models"):
            assert (await http.get(path)).status_code == 503
    assert len(looks) == 3


async def test_a_key_is_asked_for_before_anything_else(opened: Open, fake: FakeDaemon) -> None:
    """Every path but /health answers 401 without a key, before the body is looked at."""
    key = b"0123456789abcdef"
    async with opened(keys=(b"another-key-of-length", key)) as http:
        paths = [("POST", f"/{path}") for path in ("v1/embeddings", "v1/rerank", "v2/rerank")]
        paths += [("GET", "/metrics"), ("GET", "/v1/models")]
        for method, path in paths:
            assert (await http.request(method, path)).status_code == 401, path
        known = {"authorization": f"Bearer {key.decode()}"}
        assert (await http.get("/metrics", headers=known)).status_code == 200
        fake.script = lambda _: {"status": {"state": "draining", "healthy": True}}
        assert (await http.get("/health")).json() == {"status": "unavailable"}
        health = (await http.get("/health", headers=known)).json()
    reason = "the daemon is not serving: it is draining"
    assert health == {"status": "unavailable", "reason": reason}


def test_times_of_a_request() -> None:
    """A header may take as long as the request, but ten seconds at most."""
    seconds = {0.3: 0.3, 10.0: 10.0, 60.0: 10.0}
    for timeout, header in seconds.items():
        assert Settings(daemon="s", timeout=timeout).header_seconds == header  # type: ignore[arg-type]
