"""How soon a daemon answers, what it holds, what it does when idle; what its weights take.

The models are prepared beforehand, and Python's bytecode is compiled, as an installed package's
is. RSS also counts what other processes use as well, of the libraries say: it is what PSS would
be if nobody did.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from bench import bytecode, memory, resident, shapes, texts, tiny
from bench.daemon import launched
from bench.report import Chart, Result, Side, Table, point, spread
from client_lib import Client
from sidecar.host import read_host
from sidecar.models import manifest as manifests
from sidecar.models.folder.describe import describe
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.prepare_subprocess import prepare_in_subprocess
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name, locate
from sidecar.plan import weight_bits

_QUANTIZATIONS = ("none", "int8", "int4")
_TEXT = "how do I renew a passport that expired last year"
_CLIENTS = 16
_DOCUMENTS = 32
_QUERY_CHARACTERS = 200
_LOOK_SECONDS = 0.001
_MB = 1e6
_START, _PSS, _RSS, _IDLE = "start to first answer, s", "PSS, MB", "RSS, MB", "idle, % of a core"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument(
        "--reranker", type=Path, default=Path("../shared/models/reranker-minilm-l6")
    )
    texts.add_arguments(parser, count=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=float, default=5)
    parser.add_argument(
        "--shape", choices=shapes.SHAPES, help="a model of random weights: what they take, alone"
    )


def measure(arguments: argparse.Namespace) -> Result:
    daemons: dict[str, dict[str, Side]] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        workshop = Path(place)
        folder = _folder(arguments, workshop)
        # A daemon needs a model to embed with, and random weights are here for their size.
        serves = not arguments.shape and describe(folder).task == "embed"
        load = _load_of(arguments) if serves else []
        artifacts = {each: _prepared(folder, each, workshop / each) for each in _QUANTIZATIONS}
        preparing = _preparing(artifacts)
        engine = _prepared(tiny.write(workshop / "tiny"), "int8", workshop / "engine")
        model = arguments.shape or display_name(arguments.model)
        weights = resident.measure(artifacts, engine, arguments.rounds, model)
        if serves:
            households = {"alone": [artifacts["int8"]]}
            if arguments.reranker.is_dir():
                reranker = _prepared(arguments.reranker, "int8", workshop / "reranker")
                households["with a reranker"] = [artifacts["int8"], reranker]
            else:
                skipped["with a reranker"] = f"there is no {arguments.reranker}"
            daemons = _measure_daemons(households, workshop, load, arguments)
    return Result(
        title=f"{model}, random weights" if arguments.shape else model,
        sides=[*(side for each in daemons.values() for side in each.values()), *weights.sides],
        figures={},
        skipped=skipped,
        tables=[*([_table(daemons)] if daemons else []), preparing, weights.table],
        charts=[*([_chart(model, daemons)] if daemons else []), weights.chart],
    )


def _table(daemons: Mapping[str, Mapping[str, Side]]) -> Table:
    rows = [
        (what, *(spread(sides[what]) for sides in daemons.values()))
        for what in (_START, _PSS, _RSS, _IDLE)
    ]
    return Table("A daemon in int8, after its load", ("", *daemons), rows)


def _preparing(artifacts: Mapping[str, Path]) -> Table:
    """Return how long preparing took, and by how much longer for the proof in it."""
    made = {name: manifests.read(path) for name, path in artifacts.items()}
    whole = [f"{manifest.seconds:.1f}" for manifest in made.values()]
    proving = [
        f"{manifest.verified.seconds:.1f}" if manifest.verified else "-"
        for manifest in made.values()
    ]
    rows = [
        ("preparing, s", *whole),
        ("of which comparing with sentence-transformers, s", *proving),
    ]
    return Table("Preparing, once each", ("", *made), rows)


def _chart(model: str, daemons: Mapping[str, Mapping[str, Side]]) -> Chart:
    return Chart(
        name="memory",
        title=f"{model} in int8: memory of a daemon, after its load",
        about="PSS and RSS in MB of a daemon with the model alone, and with a reranker beside it.",
        x="",
        y="MB",
        series={
            kind: [point(name, sides[f"{kind}, MB"]) for name, sides in daemons.items()]
            for kind in ("PSS", "RSS")
        },
    )


def _folder(arguments: argparse.Namespace, workshop: Path) -> Path:
    if arguments.shape:
        return shapes.write(arguments.shape, workshop / arguments.shape)
    return locate(arguments.model)


def _prepared(folder: Path, quantization: str, output: Path) -> Path:
    print(f"preparing {folder.name} in {quantization}", file=sys.stderr)
    # Nothing here asks how close it is: no layer has to stay in FP32 for that.
    precision = Precision(quantization, weight_bits(read_host()), floor=-1)
    prepare_in_subprocess(
        PrepareRequest(folder=folder, name=output.name, precision=precision, output=output)
    )
    return output


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """What one daemon was seen to do; memory in bytes, `idle` as a share of one core."""

    start_seconds: float
    pss: int
    rss: int
    idle: float


def _measure_daemons(
    households: Mapping[str, Sequence[Path]],
    workshop: Path,
    load: Sequence[str],
    arguments: argparse.Namespace,
) -> dict[str, dict[str, Side]]:
    environ = bytecode.keeping(workshop / "bytecode")
    visits: dict[str, list[_Visit]] = {name: [] for name in households}
    for number in range(arguments.rounds + 1):
        for name, served in households.items():
            visit = _visit(served, environ, load, arguments.idle_seconds if number else 0)
            if number:  # the first round compiles
                visits[name].append(visit)
    return {name: _sides(name, each) for name, each in visits.items()}


def _sides(name: str, visits: Sequence[_Visit]) -> dict[str, Side]:
    measured = {
        _START: ("s", [each.start_seconds for each in visits]),
        _PSS: ("MB", [each.pss / _MB for each in visits]),
        _RSS: ("MB", [each.rss / _MB for each in visits]),
        _IDLE: ("% of a core", [100 * each.idle for each in visits]),
    }
    return {what: Side(f"{what}, {name}", *each) for what, each in measured.items()}


def _visit(
    served: Sequence[Path], environ: Mapping[str, str], load: Sequence[str], idle_seconds: float
) -> _Visit:
    with _answering(served, environ) as (process, client, seconds):
        _ask(client, load, rerank=len(served) > 1)
        held = memory.held(process.pid)
        idle = _idle(process.pid, idle_seconds) if idle_seconds else 0
    return _Visit(start_seconds=seconds, pss=held["Pss"], rss=held["Rss"], idle=idle)


@contextmanager
def _answering(
    served: Sequence[Path], environ: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Client, float]]:
    """Start a daemon; yield it, a client, and the seconds from one to the other's first answer."""
    flags = ["--device", "cpu", "--embedding-model", str(served[0])]
    for reranker in served[1:]:
        flags += ["--reranker-model", str(reranker)]
    started = time.perf_counter()
    with launched(*flags, environ=environ) as (process, socket):
        while not socket.exists():
            if process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {process.returncode}")
            time.sleep(_LOOK_SECONDS)
        with Client(socket, timeout=120) as client:
            client.embed([_TEXT])
            yield process, client, time.perf_counter() - started


def _ask(client: Client, load: Sequence[str], *, rerank: bool) -> None:
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(lambda text: client.embed([text]), load))
    if rerank:
        for start in range(0, len(load), _DOCUMENTS):
            query, *documents = load[start : start + _DOCUMENTS]
            client.rerank(query[:_QUERY_CHARACTERS], documents or [query])


def _idle(pid: int, seconds: float) -> float:
    before = memory.computed(pid)
    time.sleep(seconds)
    return (memory.computed(pid) - before) / seconds


def _load_of(arguments: argparse.Namespace) -> list[str]:
    """Return as many texts as were asked for, some of them again where the file has fewer."""
    return list(islice(cycle(texts.read(arguments.data, arguments.texts)), arguments.texts))
