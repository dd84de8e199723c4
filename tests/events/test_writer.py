"""Lines are written by a thread, and logging never blocks."""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.events.writer import Lines, Writer

PATIENCE = 30


class Held:
    """A target that blocks until it is released, and fails while `failing`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.failing = False
        self.taken: list[bytes] = []

    def encode(self, record: Any) -> bytes:
        return bytes(record["size"])

    def write(self, entries: Sequence[bytes]) -> int:
        self.released.wait(PATIENCE)
        if self.failing:
            return len(entries)
        self.taken += entries
        return 0


@pytest.fixture
def lost() -> list[int]:
    return []


def test_a_reader_that_does_not_read_holds_nobody_up(lost: list[int]) -> None:
    """Records beyond a mebibyte are dropped, and their count is reported once writing resumes."""
    target = Held()
    writer = Writer(target, lost.append)
    for _ in range(20):
        writer.put({"size": 100_000})
    writer.flush(0)  # a flush does not block for ever, either
    assert lost == []
    target.released.set()
    writer.flush(PATIENCE)
    writer.put({"size": 1})
    writer.flush(PATIENCE)
    assert [len(entry) for entry in target.taken] == [100_000] * 10 + [1]
    assert lost == [10]


def test_what_could_not_be_written_is_told_when_it_can_be(lost: list[int]) -> None:
    """Failed writes are reported only once writing succeeds, or the report would be lost, too."""
    target = Held()
    target.failing = True
    target.released.set()
    writer = Writer(target, lost.append)
    for _ in range(3):
        writer.put({"size": 1})
        writer.flush(PATIENCE)
    assert lost == []
    target.failing = False
    writer.put({"size": 1})
    writer.flush(PATIENCE)
    writer.put({"size": 1})
    writer.flush(PATIENCE)
    assert lost == [3]


def test_a_full_pipe_holds_nobody_up(lost: list[int]) -> None:
    """Lines are queued while a pipe is full, and arrive whole and in order once it is read."""
    reading, writing = os.pipe()
    writer = Writer(Lines(writing), lost.append)
    for number in range(2_000):  # more than a pipe holds
        writer.put({"number": number, "text": "x" * 100})
    with os.fdopen(reading, "rb") as reader:
        lines = [json.loads(reader.readline()) for _ in range(2_000)]
    assert [line["number"] for line in lines] == list(range(2_000))
    writer.flush(PATIENCE)
    os.close(writing)


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    """Writing to a non-blocking pipe waits until it is writable, and cuts no line."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = [b"%06d\n" % number for number in range(50_000)]
    thread = threading.Thread(target=Lines(writing).write, args=(lines,))
    thread.start()
    with os.fdopen(reading, "rb") as reader:
        assert reader.read(len(lines) * 7) == b"".join(lines)
    thread.join(PATIENCE)
    os.close(writing)


def test_a_reader_that_has_gone_is_no_reason_to_fail() -> None:
    """If the reader has gone away, the lines are counted as lost."""
    reading, writing = os.pipe()
    os.close(reading)
    assert Lines(writing).write([b"a\n", b"b\n"]) == 2
    os.close(writing)


def test_what_waits_is_counted_by_its_bytes(lost: list[int]) -> None:
    """Exactly a mebibyte can be queued, and written entries no longer count."""
    target = Held()
    writer = Writer(target, lost.append)
    for size in (2**20 - 10, 10, 1):
        writer.put({"size": size})
    target.released.set()
    writer.flush(PATIENCE)
    assert [len(entry) for entry in target.taken] == [2**20 - 10, 10]
    writer.put({"size": 2**20})
    writer.flush(PATIENCE)
    writer.put({"size": 2**20 + 1})
    writer.put({"size": 2})
    writer.flush(PATIENCE)
    assert [len(entry) for entry in target.taken][2:] == [2**20, 2]


def test_a_line_is_json_without_spaces(lost: list[int]) -> None:
    """A line is compact JSON, with values unknown to JSON as strings."""
    assert Lines(1).encode({"a": 1, "b": [Path("/x"), None]}) == b'{"a":1,"b":["/x",null]}\n'


def test_all_that_was_written_is_not_lost(tmp_path: Path) -> None:
    """Entries that were written are not counted as lost."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        assert Lines(file.fileno()).write([b"a\n", b"b\n"]) == 0
        assert Lines(file.fileno()).write([]) == 0
    assert path.read_bytes() == b"a\nb\n"
