"""A daemon without models: real sockets, the real protocol, scripted answers.

Each connection has a thread. `script` gets each request; it returns a body or one of the `Act`s, or
raises a `ReplyError`. The default script, `answer`, stands in for a model.
"""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

import numpy as np

from client_lib.wire.errors import BadRequest, ReplyError, UnknownModel
from client_lib.wire.messages import (
    Cancel,
    Embed,
    Hello,
    Metrics,
    Ping,
    Precision,
    Request,
    Rerank,
    Status,
)
from client_lib.wire.protocol import VERSION, Limits, Refused, ServerConnection

DIMENSIONS = 8
# All numbers differ, so that a mix-up shows.
USAGE = {"prompt_tokens": 5, "total_tokens": 6}
TIMINGS = {
    "queue_ms": 0.1, "tokenize_ms": 0.2, "compute_ms": 0.3, "total_ms": 0.75,
    "batch_rows": 9, "batch_tokens": 7, "cached_rows": 2, "shared_rows": 1,
}  # fmt: skip


class Act(Enum):
    """What a script may do instead of answering."""

    SILENCE = auto()  # never answer
    HANG_UP = auto()  # close the connection
    GARBAGE = auto()  # send an invalid frame


Script = Callable[[Request], Mapping[str, Any] | Act]


def answer(request: Request) -> Mapping[str, Any]:
    """Answer as a daemon would, with vectors and scores that depend only on the texts."""
    if getattr(request, "model", None) not in {None, "fake"}:
        raise UnknownModel("only 'fake' is served")
    match request:
        case Embed():
            return embed_body([vector(text) for text in request.input], precision=request.precision)
        case Rerank():
            return rerank_body(request)
        case Status():
            return {"status": {"server": "fake"}}
        case Metrics():
            return {"content_type": "text/plain", "text": f"fake_{request.format} 1\n"}
        case Ping():
            return {}
        case Cancel():
            return {"cancelled": False}
    raise BadRequest(f"no answer to {request.op}")


def vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a text's vector, which is unique among texts of at most 8 bytes."""
    data = text.encode()[:DIMENSIONS].ljust(DIMENSIONS, b"\0")
    return np.frombuffer(data, np.uint8).astype(np.float32)


def embed_body(
    rows: list[Any], model: str = "fake", precision: Precision = "float32"
) -> dict[str, Any]:
    """Return the body of a reply to `embed`, made from small whole numbers."""
    table = np.asarray(rows, "<f4")
    if precision.endswith("binary"):
        table = np.packbits(table > 0, axis=-1).view("u1" if precision == "ubinary" else "i1")
    else:
        table = table.astype(precision)
    vectors = {"dtype": table.dtype.name, "shape": list(table.shape), "data": table.tobytes()}
    return {
        "model": model, "vectors": vectors, "usage": USAGE, "truncated": [], "timings": TIMINGS,
    }  # fmt: skip


def rerank_body(request: Rerank) -> dict[str, Any]:
    """Return the body of a reply to `rerank`, scored by the words shared with the query."""
    wanted = set(request.query.split())
    scores = [float(len(wanted & set(document.split()))) for document in request.documents]
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n]
    results = [{"index": index, "relevance_score": scores[index]} for index in best]
    return {
        "model": "fake", "method": "embedding", "results": results,
        "usage": USAGE, "truncated": [], "timings": TIMINGS,
    }  # fmt: skip


def first(act: Act | ReplyError) -> Script:
    """Do `act` for the first embed, and answer everything after it."""
    acts = [act]

    def script(request: Request) -> Any:
        if not (isinstance(request, Embed) and acts):
            return answer(request)
        act = acts.pop()
        if isinstance(act, ReplyError):
            raise act
        return act

    return script


class FakeDaemon:
    """Listens at `path` between `start` and `stop`.

    `seen` holds every request but hello, and `received` counts all bytes. `faults` lists protocol
    violations of the client, such as repeating an answered request; leaving the block checks that
    there are none.
    """

    def __init__(self, path: Path, limits: Limits | None = None, version: int = VERSION) -> None:
        self.socket = path
        self.script: Script = answer
        self.limits = limits or Limits()
        self.version = version
        self.seen: list[Request] = []
        self.connections = 0
        self.received = 0
        self.faults: list[str] = []
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._peers: dict[socket.socket, _Memory] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._listener = self._listen()
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Vanish: remove the socket file and end every connection."""
        assert self._listener is not None
        self.socket.unlink()
        _shut(self._listener)
        self.hang_up()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._listener.close()
        self._listener = None

    def wait_until_left(self, count: int = 0) -> None:
        """Wait until at most `count` connections are open."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._peers) <= count, 10)

    @property
    def unsettled(self) -> int:
        """The number of requests on open connections neither answered nor cancelled."""
        with self._changed:
            return sum(len(memory.waiting) for memory in self._peers.values())

    def hang_up(self) -> None:
        """End every connection, but keep listening."""
        with self._changed:
            for peer in self._peers:
                _shut(peer)

    def wait_for(self, kind: type[Request], count: int = 1) -> list[Any]:
        """Wait for `count` requests of one kind, and return all of that kind."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._of(kind)) >= count, 10)
            return self._of(kind)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self.stop()
        assert self.faults == []

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.fspath(self.socket))
        listener.listen()
        return listener

    def _of(self, kind: type[Request]) -> list[Request]:
        return [request for request in self.seen if isinstance(request, kind)]

    def _spawn(self, work: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with self._changed:
                    self._peers[peer] = _Memory(self.limits)
                    self.connections += 1
                self._spawn(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        connection = self._peers[peer]
        with suppress(OSError):
            while data := peer.recv(65536):
                self.received += len(data)
                if not all(self._handle(peer, connection, r) for r in connection.receive(data)):
                    break
        with self._changed:
            del self._peers[peer]
            self._changed.notify_all()
        peer.close()

    def _handle(
        self, peer: socket.socket, connection: "_Memory", received: Request | Refused
    ) -> bool:
        if isinstance(received, Refused):
            if "still in flight" in received.error.message:
                self.faults.append(received.error.message)
            peer.sendall(connection.fail(received.id, received.error))
            return not received.fatal
        if isinstance(received, Hello):
            peer.sendall(connection.reply(received.id, **self._hello()))
            return True
        with self._changed:
            self.seen.append(received)
            if fault := connection.record(received):
                self.faults.append(fault)
            self._changed.notify_all()
        return self._act(peer, connection, received)

    def _act(self, peer: socket.socket, connection: "_Memory", request: Request) -> bool:
        try:
            body = self.script(request)
        except ReplyError as error:
            peer.sendall(connection.fail(request.id, error))
            return True
        if isinstance(body, Act):
            if body is Act.GARBAGE:
                peer.sendall(b"\0\0\0\x01\xc1")
            return body is Act.SILENCE
        peer.sendall(connection.reply(request.id, **body))
        return True

    def _hello(self) -> dict[str, Any]:
        return {
            "version": self.version, "server": "fake/0", "limits": asdict(self.limits),
            "pid": os.getpid(),
        }  # fmt: skip


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Memory(ServerConnection):
    """One connection, with the ids of its pending and of its answered requests."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.waiting: set[int] = set()
        self._done: set[int] = set()

    def record(self, request: Request) -> str | None:
        """Record `request`; return what is wrong with it, if anything."""
        if isinstance(request, Cancel):  # a cancel itself is not pending
            self.waiting.discard(request.target)
        else:
            self.waiting.add(request.id)
        return f"id {request.id} was already answered" if request.id in self._done else None

    def reply(self, request_id: int, **body: Any) -> bytes:
        self._settle(request_id)
        return super().reply(request_id, **body)

    def fail(self, request_id: int | None, error: ReplyError) -> bytes:
        if request_id is not None:
            self._settle(request_id)
            if error.retryable:  # the client may repeat it
                self._done.discard(request_id)
        return super().fail(request_id, error)

    def _settle(self, request_id: int) -> None:
        self.waiting.discard(request_id)
        self._done.add(request_id)
