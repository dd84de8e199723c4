"""What the socket, the protocol, the batching and the events add to a lone short request.

All ways of computing it use the same INT8 artifact, on as many threads, in turn: in this process
by hand, in the barest server there can be, and in a daemon, which says of every request how long
each phase took. What its parts take by themselves is measured in the same turns.
"""

import argparse
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import barest, parts, tiny
from bench.daemon import running
from bench.report import Chart, Result, Side, Table, middle
from client_lib import Client, EmbedReply
from sidecar.host import read_host
from sidecar.models.layout import layout_of
from sidecar.models.model import Model, load
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name, locate
from sidecar.plan import weight_bits

_WARM_UP = 20
_FORWARD = "the bare forward"
_TOKENIZE = "tokenizing"
_BY_HAND = "tokenizing and forward, in process"
_PROTOCOL = "the protocol, at both ends"
_SOCKET = "the socket: as many bytes there and back"
_BAREST = "barest server: socket, tokenizing, forward"
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
        workshop = Path(place)
        artifact = _prepared(arguments, workshop)
        model = load(artifact, layout_of(artifact, workshop, read_host().cores))
        replies: list[EmbedReply] = []
        with (
            running("--embedding-model", str(artifact), "--cache-dir", place) as path,
            Client(path) as client,
            barest.running(artifact, workshop / "barest.sock") as connection,
        ):
            calls = {
                **_calls(model, arguments.text, connection),
                _PING: client.ping,
                _SIDECAR: lambda: replies.append(client.embed([arguments.text])),
            }
            alone = _interleave(calls, arguments.requests)
    phases = _phases(alone[_SIDECAR], replies[_WARM_UP:])
    told = parts.cpu_of_events(arguments.requests)
    tokens = replies[0].usage.total_tokens
    return Result(
        title=f"{model.name} in int8, one text of {tokens} tokens, one client",
        sides=(*alone.values(), *phases.values()),
        figures=_figures(alone, phases, told),
        tables=(_table_of_phases(phases, alone[_SIDECAR], told), _table_of_parts(alone)),
        charts=(_chart_of_ways(model.name, alone), _chart_of_phases(model.name, phases)),
    )


def _prepared(arguments: argparse.Namespace, workshop: Path) -> Path:
    artifact = workshop / "artifact"
    folder = tiny.write(workshop / "tiny") if arguments.tiny else locate(arguments.model)
    name = "tiny" if arguments.tiny else display_name(arguments.model)
    precision = Precision("int8", weight_bits(read_host()), 0.9)
    prepare(PrepareRequest(folder=folder, name=name, precision=precision, output=artifact))
    return artifact


def _calls(model: Model, text: str, connection: socket.socket) -> dict[str, Callable[[], object]]:
    (row,) = model.tokenize([text])
    return {
        _FORWARD: lambda: model.forward_parallel(row),
        _TOKENIZE: lambda: model.tokenize([text]),
        _BY_HAND: lambda: model.forward_parallel(model.tokenize([text])[0]),
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


def _phases(whole: Side, replies: Sequence[EmbedReply]) -> dict[str, Side]:
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
    return {name: Side(f"phase: {name}", "ms", values) for name, values in phases.items()}


def _figures(alone: Mapping[str, Side], phases: Mapping[str, Side], told: float) -> dict[str, Any]:
    whole, forward = alone[_SIDECAR].median, alone[_FORWARD].median
    return {
        "added to the bare forward, ms": whole - forward,
        "added to the forward as the daemon timed it, ms": whole - phases[_COMPUTING].median,
        "added to the barest server, ms": whole - alone[_BAREST].median,
        "processor time of a request's events, µs": told * 1e3,
        "that, % of the bare forward": 100 * told / forward,
    }


def _table_of_phases(phases: Mapping[str, Side], whole: Side, told: float) -> Table:
    def share(ms: float) -> str:
        return f"{100 * ms / whole.median:.0f} %"

    sides = {**phases, "all of it": whole}
    rows = [(*_row(name, side), share(side.median)) for name, side in sides.items()]
    events = ("after the reply: its events, processor time", f"{told:.3f}", "", share(told))
    head = ("phase of a request", "ms", "half lie between", "of all")
    return Table("A request through the daemon", head, [*rows, events])


def _table_of_parts(alone: Mapping[str, Side]) -> Table:
    rows = [_row(name, side) for name, side in alone.items()]
    return Table("Its parts by themselves", ("by itself", "ms", "half lie between"), rows)


def _row(name: str, side: Side) -> tuple[str, str, str]:
    each = middle("", side)
    return name, f"{each.median:.3f}", f"{each.low:.3f} to {each.high:.3f}"


def _chart_of_ways(model: str, alone: Mapping[str, Side]) -> Chart:
    ways = (_SIDECAR, _BAREST, _BY_HAND, _FORWARD)
    return Chart(
        name="ways",
        title=f"One short text, one client: {model}",
        about="Milliseconds for one text: "
        + ", ".join(f"{name} {alone[name].median:.2f}" for name in ways),
        x="",
        y="ms; whiskers hold half of the requests",
        series={name: [middle("", alone[name])] for name in ways},
    )


def _chart_of_phases(model: str, phases: Mapping[str, Side]) -> Chart:
    return Chart(
        name="phases",
        title=f"Where a lone request through the daemon spends its time: {model}",
        about="Milliseconds in each phase of a request: "
        + ", ".join(f"{name} {side.median:.2f}" for name, side in phases.items()),
        x="",
        y="ms; whiskers hold half of the requests",
        series={model: [middle(name, side) for name, side in phases.items()]},
    )
