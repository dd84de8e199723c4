"""A thread writes records, so that a slow reader blocks nobody."""

import json
import os
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

Record: TypeAlias = Mapping[str, Any]

_MOST_BYTES = 2**20
_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


class Target(Protocol):
    """Encodes records as entries, and writes them."""

    def encode(self, record: Record) -> bytes:
        """Return `record` as an entry."""

    def write(self, entries: Sequence[bytes]) -> int:
        """Write the entries, blocking while the reader is busy; return how many were lost."""


class Lines:
    """Writes JSON lines to a file descriptor. Never fails, even if the reader has gone away."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def encode(self, record: Record) -> bytes:
        """Return `record` as a line of JSON."""
        return _encode(record).encode() + b"\n"

    def write(self, entries: Sequence[bytes]) -> int:
        """Write the lines; return how many were lost: none or, after an error, all of them."""
        rest = memoryview(b"".join(entries))
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        except OSError:
            return len(entries)
        return 0

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # another user of the descriptor made it non-blocking
            select.select((), (self._descriptor,), ())
            return 0


class Writer:
    """Hands records to a thread that writes them to `target`.

    `put` never blocks. Records that would take the backlog over 1 MiB are dropped and counted;
    once writing succeeds again, the thread calls `log_lost` with the count.
    """

    def __init__(self, target: Target, log_lost: Callable[[int], None]) -> None:
        self._target = target
        self._log_lost = log_lost
        self._waiting: list[bytes] = []
        self._bytes = 0  # queued or being written
        self._lost = 0
        self._changed = threading.Condition()
        # A daemon thread: at exit it must not be joined, as the reader may never come back.
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def put(self, record: Record) -> None:
        """Queue `record` for writing."""
        entry = self._target.encode(record)
        with self._changed:
            if self._bytes + len(entry) > _MOST_BYTES:
                self._lost += 1
                return
            self._waiting.append(entry)
            self._bytes += len(entry)
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until everything is written, for at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                entries, self._waiting = self._waiting, []
            lost = self._target.write(entries)
            with self._changed:
                self._bytes -= sum(map(len, entries))
                self._lost += lost
                # A report would be lost, too, while writes fail.
                reported = 0 if lost else self._lost
                self._lost -= reported
                self._changed.notify_all()
            if reported:
                self._log_lost(reported)
