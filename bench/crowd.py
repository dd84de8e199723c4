"""Well-behaved clients in a closed loop, and the book in which every request is accounted for.

A third are threads that share one `Client`, a third are tasks with an `AsyncClient` each, and a
third speak the protocol by hand, as docs/protocol.md tells a client in another language to: they
see every reply, also one that comes twice.
"""

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from bench.subject import Subject
from client_lib import AsyncClient, Client
from client_lib.dial import connect
from client_lib.recovery import TRANSIENT, pause
from client_lib.trust import Trust
from client_lib.wire.errors import ReplyError
from client_lib.wire.messages import Embed, Hello
from client_lib.wire.protocol import VERSION, ClientConnection, Reply

_TIMEOUT = 120.0
_SIZES = (1, 1, 1, 1, 2, 4, 16)
_WINDOW = 4  # requests in flight of a client that speaks by hand
_READ_BYTES = 65_536


class Book:
    """What was asked and what came of it. Threads may share it."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._whose = {vector: index for index, vector in enumerate(subject.vectors)}
        self._lock = threading.Lock()
        self.asked = 0
        self.answered = 0
        self.compared = 0
        self.doubled = 0
        self.other_answers = 0
        self.wrong = 0
        self.errors: Counter[str] = Counter()
        self.times: list[float] = []

    @property
    def waiting(self) -> int:
        with self._lock:
            return self.asked - self.answered - self.errors.total()

    def ask(self, chance: random.Random) -> tuple[Sequence[int], list[str]]:
        """Return the indexes and the texts of a new request."""
        with self._lock:
            self.asked += 1
        texts = self._subject.texts
        picks = [chance.randrange(len(texts)) for _ in range(chance.choice(_SIZES))]
        return picks, [texts[i] for i in picks]

    def settle(self, picks: Sequence[int], vectors: Sequence[bytes]) -> None:
        """Compare an answer, byte by byte, with what its texts have alone."""
        whose = [self._whose.get(vector) for vector in vectors]
        with self._lock:
            self.answered += 1
            self.compared += len(vectors)
            self.times.append(time.monotonic())
            self.wrong += whose.count(None)
            pairs = zip(whose, picks, strict=False)
            self.other_answers += sum(got not in {None, pick} for got, pick in pairs)
            self.other_answers += len(vectors) != len(picks)

    def fail(self, error: Exception) -> None:
        with self._lock:
            self.errors[type(error).__name__] += 1

    def double(self) -> None:
        with self._lock:
            self.doubled += 1


class Crowd:
    """Keeps asking while it is entered. Leaving it waits for what is unanswered."""

    def __init__(self, path: Path, book: Book, *, clients: int, seed: int) -> None:
        self._path = path
        self._book = book
        self._stop = threading.Event()
        self._client = Client(path, timeout=_TIMEOUT)
        chances = [random.Random(f"{seed} client {i}") for i in range(clients)]
        threads: list[tuple[Callable[..., None], Any]] = [
            (self._run_tasks, chances[::3]),
            *((self._run_thread, chance) for chance in chances[1::3]),
            *((self._run_by_hand, chance) for chance in chances[2::3]),
        ]
        self._threads = [
            threading.Thread(target=run, args=(what,), daemon=True) for run, what in threads
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        deadline = time.monotonic() + (_TIMEOUT if error is None else 0)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run_thread(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            picks, texts = self._book.ask(chance)
            try:
                reply = self._client.embed(texts)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                self._book.fail(error)
            else:
                self._book.settle(picks, [vector.tobytes() for vector in reply.vectors])

    def _run_tasks(self, chances: Sequence[random.Random]) -> None:
        asyncio.run(self._gather(chances))

    async def _gather(self, chances: Sequence[random.Random]) -> None:
        await asyncio.gather(*map(self._run_task, chances))

    async def _run_task(self, chance: random.Random) -> None:
        async with AsyncClient(self._path, timeout=_TIMEOUT) as client:
            while not self._stop.is_set():
                picks, texts = self._book.ask(chance)
                try:
                    reply = await client.embed(texts)
                except Exception as error:  # noqa: BLE001 - as above
                    self._book.fail(error)
                else:
                    self._book.settle(picks, [vector.tobytes() for vector in reply.vectors])

    def _run_by_hand(self, chance: random.Random) -> None:
        ByHand(self._path, self._book, chance).run(self._stop)


class ByHand:
    """A client of a few lines: the next connection is asked what the last one left."""

    def __init__(self, path: Path, book: Book, chance: random.Random) -> None:
        self._path = path
        self._book = book
        self._chance = chance
        self._open: dict[int, tuple[Sequence[int], Embed]] = {}
        self._next_id = 1
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop`; return when all is answered."""
        while self._open or not stop.is_set():
            try:
                with connect(str(self._path), Trust()) as sock:
                    sock.settimeout(_TIMEOUT)
                    self._converse(sock, stop)
            except TRANSIENT:
                self._failures += 1
                time.sleep(pause(self._failures))
            except Exception as error:  # noqa: BLE001 - as above
                for _ in self._open:
                    self._book.fail(error)
                self._open.clear()

    def _converse(self, sock: socket.socket, stop: threading.Event) -> None:
        connection = ClientConnection()
        sock.sendall(connection.send(Hello(id=0, version=VERSION)))
        for _, request in self._open.values():
            sock.sendall(connection.send(request))
        while self._open or not stop.is_set():
            while len(self._open) < _WINDOW and not stop.is_set():
                sock.sendall(connection.send(self._ask()))
            if not (data := sock.recv(_READ_BYTES)):
                raise ConnectionResetError
            for reply in connection.receive(data):
                self._take(reply)

    def _ask(self) -> Embed:
        picks, texts = self._book.ask(self._chance)
        request = Embed(id=self._next_id, input=tuple(texts))
        self._open[request.id] = (picks, request)
        self._next_id += 1
        return request

    def _take(self, reply: Reply) -> None:
        if reply.id == 0:
            self._failures = 0
            return
        if reply.id not in self._open:
            self._book.double()
            return
        error = reply.error
        if isinstance(error, ReplyError) and error.retryable:
            time.sleep((error.retry_after_ms or 0) / 1000)
            raise ConnectionResetError(error.code)  # asks it again, with all that is open
        picks, _ = self._open.pop(reply.id)
        if error is not None:
            self._book.fail(error)
            return
        vectors = reply.body["vectors"]
        table = np.frombuffer(vectors["data"], "<f4").reshape(vectors["shape"])
        self._book.settle(picks, [vector.tobytes() for vector in table])
