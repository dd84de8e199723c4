"""Many processes that need vectors: a model each in FP32, or one daemon in INT8 for all.

What counts is the PSS of all of them together, the daemon's included, read while all are alive
and have just computed texts. A page that several of them map counts once.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import texts
from bench.apps.together import TEXTS_EACH, Held, Together
from bench.report import Chart, Result, Side, Table, point, spread
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name

_MB = 1e6
_SIDECAR = "Sidecar, one daemon in INT8"
_IN_TORCH = "sentence-transformers FP32 in each"
_IN_ONNXRUNTIME = "onnxruntime FP32 in each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/load-mixed/texts.jsonl"))
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--rounds", type=int, default=3)


def measure(arguments: argparse.Namespace) -> Result:
    counts = arguments.processes
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        some = texts.read(arguments.data, TEXTS_EACH * max(counts))
        apps = Together(arguments.model, some, Path(place))
        looks = {
            _SIDECAR: apps.with_daemon,
            _IN_TORCH: apps.in_torch,
            _IN_ONNXRUNTIME: apps.in_onnxruntime,
        }
        held = {name: {n: list[Held]() for n in counts} for name in looks}
        for look in looks.values():
            look(1)  # compiles
        for _ in range(arguments.rounds):
            for n in counts:
                for name, look in looks.items():
                    print(f"{n} processes: {name}", file=sys.stderr)
                    held[name][n].append(look(n))
    return _result(display_name(arguments.model), held)


def _result(model: str, held: Mapping[str, Mapping[int, Sequence[Held]]]) -> Result:
    sides = {
        name: {n: _side(name, n, [each.all for each in found]) for n, found in by_n.items()}
        for name, by_n in held.items()
    }
    daemon = {n: _side("the daemon", n, [h.daemon for h in f]) for n, f in held[_SIDECAR].items()}
    client = {
        n: _side("a client's process", n, [sum(h.apps) / n for h in found])
        for n, found in held[_SIDECAR].items()
    }
    shares = {
        f"{n} processes, Sidecar of {name}, %": 100 * sides[_SIDECAR][n].median / side.median
        for name, by_n in sides.items()
        for n, side in by_n.items()
        if name != _SIDECAR
    }
    return Result(
        title=f"{model} in many processes",
        sides=[side for by_n in (*sides.values(), daemon, client) for side in by_n.values()],
        figures=shares,
        tables=[_table(model, sides, daemon, client)],
        charts=[_chart(model, sides)],
    )


def _side(name: str, n: int, values: Sequence[float]) -> Side:
    return Side(f"{n} processes: {name}", "MB", [value / _MB for value in values])


def _table(
    model: str,
    sides: Mapping[str, Mapping[int, Side]],
    daemon: Mapping[int, Side],
    client: Mapping[int, Side],
) -> Table:
    ours, theirs, by_hand = sides[_SIDECAR], sides[_IN_TORCH], sides[_IN_ONNXRUNTIME]
    rows = [
        (
            str(n),
            f"{spread(ours[n])}: {daemon[n].median:.0f} + {n} x {client[n].median:.1f}",
            f"{spread(theirs[n])}: {ours[n].median / theirs[n].median:.1%}",
            f"{spread(by_hand[n])}: {ours[n].median / by_hand[n].median:.1%}",
        )
        for n in ours
    ]
    head = (
        "processes",
        f"{_SIDECAR}: the daemon and its clients",
        f"{_IN_TORCH}: Sidecar's share of it",
        f"{_IN_ONNXRUNTIME}: Sidecar's share of it",
    )
    return Table(f"{model}: PSS of all processes together, MB", head, rows)


def _chart(model: str, sides: Mapping[str, Mapping[int, Side]]) -> Chart:
    return Chart(
        name="memory",
        title=f"{model} in many processes",
        about="How many megabytes (PSS) all processes hold together, by how many they are.",
        x="processes",
        y="PSS of all, MB",
        series={name: [point(n, side) for n, side in by_n.items()] for name, by_n in sides.items()},
    )
