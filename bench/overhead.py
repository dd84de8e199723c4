"""What the socket, the protocol, the batching and the events add to a lone short request.

All ways of computing it use the same INT8 artifact, in turn: in this process by hand, in the
barest server there can be, and in a daemon, which says of every request how long each phase
took. What a part takes by itself, with nothing before it but the others in turn, stands beside.
"""

import argparse
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench import barest, parts, tiny
from bench.daemon import running
from bench.report import Chart, Point, Result, Side, Table
from client_lib import Client, EmbedReply
from sidecar.host import read_host
from sidecar.models.model import Model, load
from sidecar.models.order import Order
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate
from sidecar.plan import weight_bits

_WARM_UP = 20
_FORWARD = "the bare forward"
_TOKENIZE = "tokenizing"
_BY_HAND = "tokenizing and the forward, in process"
_PROTOCOL = "the protocol, at both ends"
_SOCKET = "the socket: as many bytes there and back"
_BAREST = "the barest server: socket, tokenizing, forward"
_PING = "ping: socket, protocol, event loops"
_SIDECAR = "Sidecar: the whole request"
_COMPUTING = "the forward"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--tiny", action="store_true", help="a model of hardly any compute")
    parser.add_argument("--text", default="how do I renew a passport that expired last year")
    parser.add_argument("--requests", type=int, default=1_000)


def measure(arguments: argparse.Namespace) -> Result:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        artifact = _prepared(arguments, Path(place))
        model = load(artifact)
        replies: list[EmbedReply] = []
        with (
            running("--embedding-model", str(artifact)) as path,
            Client(path) as client,
            barest.running(artifact, Path(place) / "barest.sock") as connection,
        ):
            calls = {
                **_calls(model, arguments.text, connection),
                _PING: client.ping,
                _SIDECAR: lambda: replies.append(client.embed([arguments.text])),
            }
            parts_of_it = _interleave(calls, arguments.requests)
    phases = _phases(parts_of_it[_SIDECAR], replies[_WARM_UP:])
    tokens = replies[0].usage.total_tokens
    return Result(
        title=f"{model.name} in int8, one text of {tokens} tokens, one client",
        sides=(*parts_of_it.values(), *phases),
        figures=_figures(parts_of_it, phases, parts.cpu_of_events(arguments.requests)),
        tables=(_table_of_phases(phases, parts_of_it[_SIDECAR]), _table_of_parts(parts_of_it)),
        charts=(_chart_of_ways(model.name, parts_of_it), _chart_of_phases(model.name, phases)),
    )


def _prepared(arguments: argparse.Namespace, workshop: Path) -> Path:
    artifact = workshop / "artifact"
    folder = tiny.write(workshop / "tiny") if arguments.tiny else locate(arguments.model)
    name = "tiny" if arguments.tiny else arguments.model
    precision = Precision("int8", weight_bits(read_host()), 0.9)
    prepare(Order(folder=folder, name=name, precision=precision, output=artifact))
    return artifact


def _calls(model: Model, text: str, connection: socket.socket) -> dict[str, Callable[[], object]]:
    (row,) = model.tokenize([text])
    return {
        _FORWARD: lambda: model.forward(row),
        _TOKENIZE: lambda: model.tokenize([text]),
        _BY_HAND: lambda: model.forward(model.tokenize([text])[0]),
        _PROTOCOL: parts.protocol(text, model.dimensions),
        _SOCKET: lambda: barest.echo(connection, text),
        _BAREST: lambda: barest.ask(connection, text),
    }


def _interleave(calls: Mapping[str, Callable[[], object]], requests: int) -> dict[str, Side]:
    values: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(requests + _WARM_UP):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            values[name].append((time.perf_counter() - started) * 1e3)
    return {name: Side(name, "ms", each[_WARM_UP:]) for name, each in values.items()}


def _phases(whole: Side, replies: Sequence[EmbedReply]) -> list[Side]:
    """Return the phases of each request: together they are the whole of it."""
    timings = [reply.timings for reply in replies]
    rest = [each.total_ms - each.queue_ms - each.tokenize_ms - each.compute_ms for each in timings]
    outside = [ms - each.total_ms for ms, each in zip(whole.values, timings, strict=True)]
    phases = {
        "socket, protocol, event loops": outside,
        "tokenizing": [each.tokenize_ms for each in timings],
        "batching: queue, waking a thread": [each.queue_ms for each in timings],
        _COMPUTING: [each.compute_ms for each in timings],
        "back to the event loop": rest,
    }
    return [Side(name, "ms", values) for name, values in phases.items()]


def _figures(ways: Mapping[str, Side], phases: Sequence[Side], said: float) -> dict[str, Any]:
    through, forward = ways[_SIDECAR].median, ways[_FORWARD].median
    (computing,) = (each.median for each in phases if each.name == _COMPUTING)
    return {
        "added to the bare forward, ms": through - forward,
        "added to the forward as the daemon timed it, ms": through - computing,
        "added to the barest server, ms": through - ways[_BAREST].median,
        "processor time of a request's events, after its reply, µs": said * 1e3,
        "that, % of the bare forward": 100 * said / forward,
    }


def _table_of_phases(phases: Sequence[Side], whole: Side) -> Table:
    sides = (*phases, replace(whole, name="all of it"))
    rows = [(*_row(each), f"{100 * each.median / whole.median:.0f} %") for each in sides]
    head = ("phase of a request", "ms", "half lie between", "of all")
    return Table("A request through the daemon", head, rows)


def _table_of_parts(sides: Mapping[str, Side]) -> Table:
    head = ("by itself", "ms", "half lie between")
    return Table("The same parts by themselves", head, list(map(_row, sides.values())))


def _row(side: Side) -> tuple[str, str, str]:
    middle = _middle("", side)
    return side.name, f"{middle.median:.3f}", f"{middle.low:.3f} to {middle.high:.3f}"


def _chart_of_ways(model: str, ways: Mapping[str, Side]) -> Chart:
    return Chart(
        name="ways",
        title=f"One short text, one client: {model}",
        about="Milliseconds for one text: in this process by hand, through the barest server, "
        "and through the daemon.",
        x="",
        y="ms; whiskers hold half of the requests",
        series={
            name: [_middle("", ways[name])] for name in (_SIDECAR, _BAREST, _BY_HAND, _FORWARD)
        },
    )


def _chart_of_phases(model: str, phases: Sequence[Side]) -> Chart:
    return Chart(
        name="phases",
        title=f"Where a lone request through the daemon spends its time: {model}",
        about="Milliseconds in each phase of a request: "
        + ", ".join(f"{each.name} {each.median:.2f}" for each in phases)
        + ".",
        x="",
        y="ms; whiskers hold half of the requests",
        series={model: [_middle(each.name, each) for each in phases]},
    )


def _middle(x: str, side: Side) -> Point:
    """Return the median, and between what half of the values lie: one in a thousand waits long."""
    low, median, high = quantiles(side.values, n=4)
    return Point(x, median, low, high)
