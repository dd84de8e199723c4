"""What parts of a request take by themselves: the protocol at both ends, and the events."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from client_lib.wire.messages import Embed, Hello
from client_lib.wire.protocol import VERSION, ClientConnection, Limits, ServerConnection
from client_lib.wire.replies import EmbedReply, Timings
from sidecar import events
from sidecar.events.writer import Lines
from sidecar.serving.results import Answer, Embeddings

_NOTED_TOGETHER = 8  # requests in a busy daemon's hundredth of a second
_TIMINGS = Timings(0.123, 0.234, 1.234, 1.987, 1, 12, 0, 0)
# The events of a lone request, as the daemon writes them.
_EVENTS = {
    "batch.completed": {
        "batch_id": 12_345, "model": "all-MiniLM-L6-v2", "lane": "interactive", "peers": 1,
        "rows": 1, "tokens": 12, "queue_ms": 0.123, "compute_ms": 1.234,
    },
    "request.completed": {
        "op": "embed", "request_id": 12_345, "peer_pid": 12_345, "peer_uid": 1_000,
        "lane": "interactive", "model": "all-MiniLM-L6-v2", "rows": 1, "tokens": 12,
        "cached_rows": 0, "shared_rows": 0, "queue_ms": 0.123, "tokenize_ms": 0.234,
        "compute_ms": 1.234, "total_ms": 1.987, "batch_rows": 1,
    },
}  # fmt: skip


def protocol(text: str, dimensions: int) -> Callable[[], EmbedReply]:
    """Return what writes and reads a request of `text` and its reply, without a socket."""
    client, server = ClientConnection(), ServerConnection(Limits())
    (hello,) = server.receive(client.send(Hello(id=0, version=VERSION)))
    server.reply(hello.id)
    answer = Answer("all-MiniLM-L6-v2", 1, 12, (), _TIMINGS)
    result = Embeddings(answer, np.ones((1, dimensions), np.float32))

    def both_ways() -> EmbedReply:
        (request,) = server.receive(client.send(Embed(id=1, input=(text,))))
        (reply,) = client.receive(server.reply(request.id, **result.to_map()))
        return EmbedReply.from_map(reply.body, 1)

    return both_ways


def cpu_of_events(requests: int) -> float:
    """Return the processor time of one request's events, their writing included, in ms."""
    with Path(os.devnull).open("wb") as sink:
        events.configure(Lines(sink.fileno()))
        started = time.process_time()
        for request in range(requests):
            for name, fields in _EVENTS.items():
                events.log.info(name, **fields)
            if request % _NOTED_TOGETHER == 0:
                events.flush()
        events.flush()
        return (time.process_time() - started) * 1e3 / requests
