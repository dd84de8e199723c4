"""Files in every state: rotated, compressed, cut off, and with lines that are not events."""

import gzip
import json
import os
import sys
import threading
from contextlib import closing
from math import isfinite
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.operate.records import (
    STDIN,
    Reading,
    SourceError,
    follow_file,
    from_files,
    lines_of,
    of_lines,
    parse,
    seconds,
)

from .world import lines


def event(second: int, **fields: object) -> dict[str, object]:
    head = {"ts": f"2026-11-22T10:00:{second:02}+00:00", "level": "info"}
    return {**head, "event": "batch.completed", **fields}


def write(path: Path, *seconds: int) -> Path:
    data = lines([event(second) for second in seconds])
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def seconds_of(paths: list[Path], reading: Reading | None = None) -> list[float]:
    return [record.at % 60 for record in from_files(paths, reading or Reading())]


def test_rotated_files_come_in_the_order_of_time(tmp_path: Path) -> None:
    """Events of several files, compressed or not, are merged in order of time."""
    write(tmp_path / "x.log.2.gz", 1, 2)
    write(tmp_path / "x.log.1", 3, 5)
    write(tmp_path / "x.log", 6)
    write(tmp_path / "y.log", 4)
    assert seconds_of(sorted(tmp_path.iterdir())) == [1, 2, 3, 4, 5, 6]


def test_a_packed_file_is_known_by_its_content(tmp_path: Path) -> None:
    """A gzip file is recognised by its content, whatever its name."""
    packed = write(tmp_path / "x.gz", 1)
    assert seconds_of([packed.rename(tmp_path / "x.log.1")]) == [1]


@pytest.mark.parametrize(
    "line",
    [
        b"Traceback (most recent call last):\n",
        b'{"ts":"2026-11-22T10:00:00+00:00","event":"peer.conn',
        b'{"ts":"soon","event":"x"}\n',
        b'{"event":"x"}\n',
        b'{"ts":"2026-11-22T10:00:00+00:00"}\n',
        b'{"ts":1,"event":"x"}\n',
        b"[1]\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"x":' + b"9" * 10_000 + b"}\n",
        b"\0" * 3_000_000 + b"\n",
    ],
    ids=lambda line: repr(line[:20]),
)
def test_a_broken_line_is_counted_and_passed_over(tmp_path: Path, line: bytes) -> None:
    """A broken line is counted and skipped, and the place of the first is kept."""
    path = tmp_path / "x.log"
    # The last line is cut off, as if a daemon were writing it.
    path.write_bytes(lines([event(1)]) + line.rstrip() + b"\n" + lines([event(2)]) + line)
    reading = Reading()
    assert seconds_of([path], reading) == [1, 2]
    assert (reading.records, reading.broken, reading.first_broken) == (2, 2, f"{path}:2")


def test_an_empty_line_is_nothing() -> None:
    """A blank line does not count as broken."""
    reading = Reading()
    assert list(of_lines("x", [b"\n", b" \n"], reading)) == []
    assert reading.broken == 0


@given(st.binary())
def test_any_bytes_are_an_event_or_none(line: bytes) -> None:
    """No line raises; an event has a name and a finite time."""
    if (record := parse(line)) is not None:
        assert isinstance(record.fields["event"], str)
        assert isfinite(record.at)


def test_a_file_that_is_cut_off_gives_what_it_has(tmp_path: Path) -> None:
    """A truncated gzip file yields its readable events and is reported as cut off."""
    path = tmp_path / "x.gz"
    whole = gzip.compress(lines([event(i % 60, note=str(i**9)) for i in range(5_000)]))
    path.write_bytes(whole[: len(whole) // 2])
    reading = Reading()
    assert len(seconds_of([path], reading)) > 100
    assert len(reading.cut_off) == 1
    assert str(path) in reading.cut_off[0]


def test_a_file_that_is_no_gzip_inside_is_said(tmp_path: Path) -> None:
    """A corrupt gzip file is reported, and the other files are read."""
    good, bad = write(tmp_path / "x.log", 1), tmp_path / "y.gz"
    bad.write_bytes(b"\x1f\x8b" + b"x" * 100)
    reading = Reading()
    assert seconds_of([good, bad], reading) == [1]
    assert len(reading.cut_off) == 1


def test_a_file_that_is_not_there_is_refused_before_any_is_read(tmp_path: Path) -> None:
    """A missing file is refused by name before any file is read."""
    reading = Reading()
    for missing in (tmp_path / "none.log", tmp_path):
        with pytest.raises(SourceError, match=f"{missing} cannot be read"):
            seconds_of([write(tmp_path / "x.log", 1), missing], reading)
    assert reading.records == 0


def test_a_time_without_a_zone_is_utc() -> None:
    """A time without a zone is in UTC, whatever the reader's zone."""
    assert parse('{"ts":"1970-01-01T00:00:05","event":"x"}').at == 5


@pytest.mark.slow
def test_a_file_is_followed_through_its_rotation(tmp_path: Path) -> None:
    """Following a file yields appended events, and those of the file that replaces it."""
    path = write(tmp_path / "x.log", 1)
    met = threading.Event()

    def go_on() -> None:
        with path.open("ab") as log:
            log.write(lines([event(2)]))
        assert met.wait(60)
        path.rename(tmp_path / "x.log.1")
        write(tmp_path / "x.log", 3)

    writer = threading.Thread(target=go_on)
    found = []
    with closing(follow_file(path, Reading())) as records:
        for record in records:
            found.append(json.dumps(record.at % 60))
            if not writer.ident:
                writer.start()
            if len(found) == 2:
                met.set()
            if len(found) == 3:
                break
    writer.join()
    assert found == ["1.0", "2.0", "3.0"]


def test_every_file_is_put_into_what_shows_progress(tmp_path: Path) -> None:
    """Every file is wrapped for progress with its size on disk."""
    paths = [write(tmp_path / "x.log", 1), write(tmp_path / "y.gz", 2)]
    opened: list[int] = []

    def opener(stream: BinaryIO, size: int) -> BinaryIO:
        opened.append(size)
        return stream

    assert [record.at % 60 for record in from_files(paths, Reading(), opener)] == [1, 2]
    assert opened == [path.stat().st_size for path in paths]


def test_standard_input_is_read_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is read like a file, but not closed."""
    reading = Reading()
    with write(tmp_path / "x.log", 1, 2).open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert seconds_of([STDIN], reading) == [1, 2]
        os.fstat(stdin.fileno())
    assert reading.records == 2


def test_a_line_that_is_too_long_is_one_broken_line(tmp_path: Path) -> None:
    """A line longer than a mebibyte, newline included, is one broken line."""
    path = tmp_path / "x.log"
    (good,) = lines([event(1)]).splitlines()
    fits = good[:-1] + b" " * (2**20 - 1 - len(good)) + b"}\n"
    assert len(fits) == 2**20
    path.write_bytes(fits + b"x" + fits + fits + b"what\n")
    reading = Reading()
    assert seconds_of([path], reading) == [1, 1]
    assert (reading.broken, reading.first_broken) == (2, f"{path}:2")


def test_a_time_has_its_zone() -> None:
    """A time's own zone is honoured, and the fields are unchanged."""
    assert parse('{"ts":"1970-01-01T02:00:05+02:00","event":"x"}').at == 5
    assert seconds("1970-01-01T00:00:05Z") == 5
    record = parse('{"ts":"1970-01-01T00:00:05","event":"x","rows":3}')
    assert record.fields == {"ts": "1970-01-01T00:00:05", "event": "x", "rows": 3}


def test_a_command_whose_lines_are_read_is_ended(tmp_path: Path) -> None:
    """A command is terminated on exit, even if it still runs."""
    command = [sys.executable, "-uc", "import time; print('a'); time.sleep(600)"]
    with lines_of(command) as found:
        assert next(found) == b"a\n"
