"""How records leave the process: by a thread, so that nobody waits for whoever reads them."""

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
    """What a record becomes, and where that goes."""

    def encode(self, record: Record) -> bytes:
        """Return `record` as an entry."""

    def write(self, entries: Sequence[bytes]) -> int:
        """Write the entries, waiting for whoever reads; return how many could not be."""


class Lines:
    """JSON lines to a file descriptor. A reader that has gone away is no reason to fail."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def encode(self, record: Record) -> bytes:
        """Return `record` as a line."""
        return _encode(record).encode() + b"\n"

    def write(self, entries: Sequence[bytes]) -> int:
        """Write all of the lines; return how many were lost: none, or all."""
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
        except BlockingIOError:  # whoever shares the descriptor has made it so
            select.select((), (self._descriptor,), ())
            return 0


class Writer:
    """Hands records to a thread that writes them to `target`.

    `put` never waits. What comes while a mebibyte of entries waits is lost and counted, and once
    entries are taken again `say_lost` is called with the count, on that thread.
    """

    def __init__(self, target: Target, say_lost: Callable[[int], None]) -> None:
        self._target = target
        self._log_lost = say_lost
        self._waiting: list[bytes] = []
        self._bytes = 0  # of what waits and of what is being written
        self._lost = 0
        self._changed = threading.Condition()
        # Not waited for at the end of the process: whoever reads may never come back.
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def put(self, record: Record) -> None:
        """Have `record` written soon."""
        entry = self._target.encode(record)
        with self._changed:
            if self._bytes + len(entry) > _MOST_BYTES:
                self._lost += 1
                return
            self._waiting.append(entry)
            self._bytes += len(entry)
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Return once everything has been written, or after that many seconds."""
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
                # Nobody can be told while nothing is taken.
                told = 0 if lost else self._lost
                self._lost -= told
                self._changed.notify_all()
            if told:
                self._log_lost(told)
