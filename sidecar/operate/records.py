"""Sources → records: reads events from files of JSON lines.

A file may be cut off, rotated, compressed, or gigabytes long. A line that is not an event is
counted and skipped; no more than one line is held in memory.
"""

import gzip
import heapq
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedReader, FileIO, RawIOBase
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from sidecar.lines import BOM

STDIN = Path("-")

Opener = Callable[[BinaryIO, int], BinaryIO]
"""Wraps a file, given its size in bytes, before it is read: for a progress bar, say."""

_LONGEST_LINE = 1 << 20
_BUFFER_BYTES = 1 << 18
_GZIP = b"\x1f\x8b"

_decode = json.JSONDecoder().decode


class SourceError(Exception):
    """There is nothing to read: no such file, no journal. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event: `at` in seconds since the epoch, and its fields, `ts`, `level`, `event` first."""

    at: float
    fields: Mapping[str, Any]


@dataclass(slots=True)
class Reading:
    """The statistics of a reading so far."""

    records: int = 0
    broken: int = 0
    first_broken: str | None = None
    cut_off: list[str] = field(default_factory=list)

    def note_broken(self, place: str) -> None:
        """Count a line that is not an event; remember the place of the first."""
        self.broken += 1
        self.first_broken = self.first_broken or place


def from_files(
    paths: Sequence[Path], reading: Reading, opener: Opener | None = None
) -> Iterator[Record]:
    """Yield the events of all files in order of time; `-` is standard input.

    Each file is assumed to be sorted by time. Gzip is recognised by its magic bytes. Raises
    `SourceError` for a file that cannot be opened, before any is read.
    """
    with ExitStack() as stack:
        opened = [(str(path), stack.enter_context(_open(path, opener))) for path in paths]
        parts = [_of_stream(name, stream, reading) for name, stream in opened]
        yield from heapq.merge(*parts, key=attrgetter("at"))


def follow_file(path: Path, reading: Reading) -> Iterator[Record]:
    """Yield the file's events and those appended later, across rotations, until closed."""
    _open(path, None).close()
    command = ["tail", "--lines=+1", "--follow=name", "--retry", "--quiet", "--", str(path)]
    with lines_of(command) as lines:
        yield from of_lines(str(path), lines, reading)


@contextmanager
def lines_of(command: Sequence[str]) -> Iterator[Iterator[bytes]]:
    """Run `command` and yield its output lines; terminate it on exit. It inherits stderr."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - no shell
        assert process.stdout is not None
        try:
            yield _lines(process.stdout)
        finally:
            process.terminate()


def of_lines(name: str, lines: Iterable[bytes], reading: Reading) -> Iterator[Record]:
    """Yield the events among `lines` of the source `name`."""
    for index, found in enumerate(lines, 1):
        line = found.removeprefix(BOM) if index == 1 else found
        if (record := parse(line)) is not None:
            reading.records += 1
            yield record
        elif not line.isspace():
            reading.note_broken(f"{name}:{index}")


def parse(line: bytes | str) -> Record | None:
    """Return the event in a line of JSON, or None if it is not one."""
    try:
        fields = _decode(line if isinstance(line, str) else line.decode())
        if isinstance(fields, dict) and isinstance(fields["event"], str):
            return Record(seconds(fields["ts"]), fields)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    return None


def seconds(ts: str) -> float:
    """Return an ISO time, in UTC unless it names its zone, in seconds since the epoch."""
    moment = datetime.fromisoformat(ts)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _open(path: Path, opener: Opener | None) -> BinaryIO:
    try:
        if path == STDIN:
            return FileIO(sys.stdin.fileno(), closefd=False)
        stream = FileIO(path)  # the reader buffers it
        return opener(stream, path.stat().st_size) if opener else stream
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None


def _of_stream(name: str, stream: BinaryIO, reading: Reading) -> Iterator[Record]:
    # A FileIO and a progress bar's wrapper of one both have RawIOBase's methods.
    raw = cast("RawIOBase", stream)
    try:
        with BufferedReader(raw, _BUFFER_BYTES) as found, ExitStack() as stack:
            lines = _lines(found)
            if found.peek(len(_GZIP)).startswith(_GZIP):
                unpacked = gzip.GzipFile(fileobj=found)
                lines = _lines(stack.enter_context(BufferedReader(unpacked, _BUFFER_BYTES)))
            yield from of_lines(name, lines, reading)
    except (OSError, EOFError, zlib.error) as error:
        reading.cut_off.append(f"{name}: {error}")


def _lines(stream: IO[bytes] | BufferedReader) -> Iterator[bytes]:
    """Yield lines; truncate those that are too long to be an event."""
    while line := stream.readline(_LONGEST_LINE):
        yield line
        while len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            line = stream.readline(_LONGEST_LINE)
