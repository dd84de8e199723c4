"""Splitting rows into requests, writing the replies, and saving progress."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_lib import BadRequest, EmbedReply, TooLarge, UnknownModel
from sidecar.bulk import stream as streams
from sidecar.bulk.corpus import Row
from sidecar.bulk.errors import InputError
from sidecar.bulk.part import Note
from sidecar.bulk.stream import Stream

NOTE = Note({"model": {"name": "m"}}, total=1_000, rows=0, tokens=5, truncated=1, seconds=60.0)


def rows(*texts: str) -> Iterator[Row]:
    for number, text in enumerate(texts, 1):
        yield Row(text, Path("a.txt"), number)


class FakePart:
    """Records calls instead of writing to disk."""

    def __init__(self) -> None:
        self.room: list[tuple[int, int]] = []
        self.put_at: list[tuple[int, int]] = []
        self.kept: list[Note] = []

    def begin(self, total: int, dimensions: int) -> None:
        self.room.append((total, dimensions))

    def put(self, start: int, block: Any) -> None:
        self.put_at.append((start, len(block)))

    def keep(self, note: Note) -> None:
        self.kept.append(note)


class FakeClient:
    """Answers immediately; each text has as many tokens as characters."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], dict[str, Any]]] = []
        self.fail: Callable[[list[str]], None] = lambda _: None
        self.model = "m"

    async def embed(self, texts: list[str], **options: Any) -> EmbedReply:
        self.asked.append((texts, options))
        self.fail(texts)
        reply: Any = object.__new__(EmbedReply)
        for name, value in {
            "model": self.model,
            "vectors": np.zeros((len(texts), 3), np.float32),
            "usage": type("Usage", (), {"total_tokens": sum(map(len, texts))})(),
            "truncated": [0],
        }.items():
            object.__setattr__(reply, name, value)
        return reply


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Fake the clock; it advances by the returned list's element at each reading."""
    step = [0.0]
    now = [100.0]

    def monotonic() -> float:
        now[0] += step[0]
        return now[0]

    monkeypatch.setattr(streams, "monotonic", monotonic)
    return step


async def ran(
    client: FakeClient, texts: Iterator[Row], note: Note = NOTE, **options: Any
) -> tuple[FakePart, Stream, list[tuple[str, int, int]]]:
    part: Any = FakePart()
    shown: list[tuple[str, int, int]] = []
    stream = Stream(part, note, lambda *step: shown.append(step))
    asks: Any = client
    try:
        await stream.run(asks, texts, options)
    finally:
        client.part = part  # type: ignore[attr-defined]
    return part, stream, shown


async def test_rows_go_in_blocks_and_come_back_in_order(clock: list[float]) -> None:
    """Rows are sent in bulk requests of 256, and written, counted and shown in order."""
    client = FakeClient()
    part, stream, shown = await ran(client, rows(*["ab"] * 600), role="query")
    assert [len(texts) for texts, _ in client.asked] == [256, 256, 88]
    assert all(o == {"priority": "bulk", "role": "query"} for _, o in client.asked)
    assert part.room == [(1_000, 3)]
    assert part.put_at == [(0, 256), (256, 256), (512, 88)]
    assert shown == [("embedding", done, 1_000) for done in (256, 512, 600)]
    assert stream.note == replace(NOTE, rows=600, tokens=5 + 1_200, truncated=1 + 3)


async def test_what_is_gone_on_with_has_its_room_already(clock: list[float]) -> None:
    """A resumed run allocates nothing and writes after the rows in the note."""
    note = replace(NOTE, rows=256)
    part, stream, _ = await ran(FakeClient(), rows("a", "b"), note)
    assert part.room == []
    assert part.put_at == [(256, 2)]
    assert stream.note.rows == 258


async def test_the_note_is_kept_once_a_second(clock: list[float]) -> None:
    """The note is saved with the first rows, every second and at the end, totalling the time."""
    part, _, _ = await ran(FakeClient(), rows(*["a"] * 256 * 6))
    assert [note.rows for note in part.kept] == [256, 256 * 6]
    clock[0] = 0.4  # the clock is read twice if a note is saved, once otherwise
    part, stream, _ = await ran(FakeClient(), rows(*["a"] * 256 * 9))
    assert [note.rows // 256 for note in part.kept] == [1, 4, 7, 9]
    assert part.kept[-1] == stream.note
    assert stream.note.seconds == pytest.approx(60 + 0.4 * 12)


async def test_whatever_ends_it_what_is_there_is_kept(clock: list[float]) -> None:
    """Finished rows are saved if the run fails; without any, no note is saved."""
    client = FakeClient()

    def fail(texts: list[str]) -> None:
        if "bad" in texts:
            raise KeyError

    client.fail = fail
    with pytest.raises(KeyError):
        await ran(client, rows(*["a"] * 256, "bad"))
    assert client.part.kept[-1].rows == 256  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        await ran(client, rows("bad"))
    assert client.part.kept == []  # type: ignore[attr-defined]


async def test_another_model_ends_it(clock: list[float]) -> None:
    """A reply from another model ends the run, and its vectors are not written."""
    client = FakeClient()
    client.model = "n"
    with pytest.raises(UnknownModel, match="model changed from 'm' to 'n'"):
        await ran(client, rows("a"))
    assert client.part.put_at == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BadRequest("no text", index=1), "a.txt:2: no text"),
        (TooLarge("too long", index=0), "a.txt:1: too long"),
        (TooLarge("too much"), "a.txt:1 to a.txt:3: too much"),
        (TooLarge("too much", index=3), "a.txt:1 to a.txt:3: too much"),
        (BadRequest("not this role"), None),
        (BadRequest("no text", index=3), None),
    ],
)
async def test_what_is_refused_is_told_by_its_place(
    clock: list[float], error: Exception, message: str | None
) -> None:
    """A refusal names the text's location, or the range of a request that is too large."""
    client = FakeClient()

    def fail(_: list[str]) -> None:
        raise error

    client.fail = fail
    with pytest.raises(InputError if message else type(error)) as raised:
        await ran(client, rows("a", "b", "c"))
    assert message is None or str(raised.value) == message


async def test_requests_in_flight_are_given_up_where_one_fails(clock: list[float]) -> None:
    """If a request fails, the others in flight are cancelled instead of awaited."""
    given_up: list[str] = []

    class Waiting(FakeClient):
        async def embed(self, texts: list[str], **options: Any) -> EmbedReply:
            if texts[0] == "bad":
                await asyncio.sleep(0)
                raise KeyError
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                given_up.append(texts[0])
                raise
            raise AssertionError

    async with asyncio.timeout(30):
        with pytest.raises(KeyError):
            await ran(Waiting(), rows(*["bad"] * 256, *["a"] * 256, "b"))
    assert given_up == ["a", "b"]
