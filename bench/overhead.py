"""What the socket, the protocol and the batching add to a lone short request.

All sides compute the same INT8 artifact, in turn: in this process by hand, in the barest
server there can be, and in a daemon.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench import barest, tiny
from bench.daemon import running
from bench.report import Result, Side
from client_lib import Client, EmbedReply
from sidecar import events
from sidecar.events.writer import Lines
from sidecar.host import read_host
from sidecar.models.model import load
from sidecar.models.order import Order
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate
from sidecar.plan import weight_bits

_WARM_UP = 20
_NOTED_TOGETHER = 8  # requests in a busy daemon's hundredth of a second
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--tiny", action="store_true", help="a model of hardly any compute")
    parser.add_argument("--text", default="how do I renew a passport that expired last year")
    parser.add_argument("--requests", type=int, default=1_000)


def measure(arguments: argparse.Namespace) -> Result:
    text = arguments.text
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        artifact = Path(place) / "artifact"
        precision = Precision("int8", weight_bits(read_host()), 0.9)
        prepare(
            Order(
                folder=tiny.write(Path(place) / "tiny")
                if arguments.tiny
                else locate(arguments.model),
                name="tiny" if arguments.tiny else arguments.model,
                precision=precision,
                output=artifact,
            )
        )
        model = load(artifact)
        (row,) = model.tokenize([text])
        replies: list[EmbedReply] = []
        with (
            running("--embedding-model", str(artifact)) as path,
            Client(path) as client,
            barest.running(artifact, Path(place) / "barest.sock") as connection,
        ):
            sides: dict[str, Callable[[], object]] = {
                "bare forward": lambda: model.forward(row),
                "tokenize and forward": lambda: model.forward(model.tokenize([text])[0]),
                "barest server": lambda: barest.ask(connection, text),
                "through the daemon": lambda: replies.append(client.embed([text])),
                "ping": client.ping,
            }
            measured = _interleave(sides, arguments.requests)
    said = _cpu_of_events(arguments.requests)
    through = measured["through the daemon"].median
    inside = median(reply.timings.compute_ms for reply in replies)
    return Result(
        title=f"{model.name}, one text of {row.tokens} tokens, one client",
        sides=tuple(measured.values()),
        figures={
            "added to the bare forward, ms": through - measured["bare forward"].median,
            "added to the forward as the daemon timed it, ms": through - inside,
            "added to the barest server, ms": through - measured["barest server"].median,
            "processor time of its events, µs": said * 1e3,
            "events, % of the bare forward": 100 * said / measured["bare forward"].median,
        },
    )


def _cpu_of_events(requests: int) -> float:
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


def _interleave(sides: dict[str, Callable[[], object]], requests: int) -> dict[str, Side]:
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(requests + _WARM_UP):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            values[name].append((time.perf_counter() - started) * 1e3)
    return {name: Side(name, "ms", each[_WARM_UP:]) for name, each in values.items()}
