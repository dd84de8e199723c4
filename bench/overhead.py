"""What the socket, the protocol and the batching add to a lone short request.

Both sides compute the same INT8 artifact: in this process by hand, and through a daemon.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.daemon import running
from bench.report import Result, Side
from client_lib import Client
from sidecar.host import read_host
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare import Order, prepare
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate
from sidecar.plan import weight_bits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--text", default="how do I renew a passport that expired last year")
    parser.add_argument("--requests", type=int, default=1_000)


def measure(arguments: argparse.Namespace) -> Result:
    text = arguments.text
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        artifact = Path(place) / "artifact"
        prepare(
            Order(
                folder=locate(arguments.model),
                name=arguments.model,
                precision=Precision("int8", weight_bits(read_host()), 0.995),
                output=artifact,
            )
        )
        model = load(artifact)
        (row,) = model.tokenize([text])
        sides: dict[str, tuple[Callable[[], object], list[float]]] = {
            "bare forward": (lambda: model.forward(row), []),
            "tokenize and forward": (lambda: model.forward(model.tokenize([text])[0]), []),
        }
        with running("--embedding-model", str(artifact)) as socket, Client(socket) as client:
            sides["through the daemon"] = (lambda: client.embed([text]), [])
            sides["ping"] = (client.ping, [])
            _interleave(sides, arguments.requests)
    measured = {name: Side(name, "ms", values) for name, (_, values) in sides.items()}
    through, bare = measured["through the daemon"].median, measured["bare forward"].median
    return Result(
        title=f"{arguments.model}, one text of {row.tokens} tokens, one client",
        sides=tuple(measured.values()),
        figures={"added to the bare forward, ms": through - bare},
    )


def _interleave(sides: dict[str, tuple[Callable[[], object], list[float]]], requests: int) -> None:
    for turn in range(requests + 20):
        for call, values in sides.values():
            started = time.perf_counter()
            call()
            if turn >= 20:  # the first ones warm up
                values.append((time.perf_counter() - started) * 1e3)
