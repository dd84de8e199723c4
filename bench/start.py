"""How soon a daemon answers, what it holds, what it does when idle; what its weights take.

The models are prepared beforehand, and Python's bytecode is compiled, as an installed package's
is. RSS also counts what other processes use as well, of the libraries say: it is what PSS would
be if nobody did.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import bytecode, memory, resident, shapes, tiny
from bench.daemon import launched
from bench.report import Result, Side
from client_lib import Client
from sidecar.host import read_host
from sidecar.models.apart import prepare_apart
from sidecar.models.folder import describe
from sidecar.models.order import Order
from sidecar.models.precision import Precision
from sidecar.models.probes import probe_inputs
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate
from sidecar.plan import weight_bits

_SHARED = Path("../shared")
_QUANTIZATIONS = ("none", "int8", "int4")
_TEXT = "how do I renew a passport that expired last year"
_CLIENTS = 16
_DOCUMENTS = 32
_QUERY_CHARACTERS = 200
_LOOK_SECONDS = 0.001
_MB = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--reranker", type=Path, default=_SHARED / "models/reranker-minilm-l6")
    parser.add_argument("--data", type=Path, default=_SHARED / "data/load-mixed/texts.jsonl")
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=float, default=5)
    parser.add_argument(
        "--shape", choices=shapes.SHAPES, help="a model of random weights: what they take, alone"
    )


def measure(arguments: argparse.Namespace) -> Result:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        workshop = Path(place)
        folder = _folder(arguments, workshop)
        artifacts = {each: _prepared(folder, each, workshop / each) for each in _QUANTIZATIONS}
        engine = _prepared(tiny.write(workshop / "tiny"), "int8", workshop / "engine")
        sides, figures = resident.measure(artifacts, engine, arguments.rounds)
        notes: dict[str, Any] = {}
        # A daemon needs a model to embed with, and random weights are here for their size.
        if not arguments.shape and describe(folder).task == "embed":
            households = {"alone": [artifacts["int8"]]}
            if arguments.reranker.is_dir():
                reranker = _prepared(arguments.reranker, "int8", workshop / "reranker")
                households["with a reranker"] = [artifacts["int8"], reranker]
            else:
                notes["with a reranker"] = f"left out: there is no {arguments.reranker}"
            sides = [*_measure_daemons(households, workshop, arguments), *sides]
    return Result(
        title=arguments.shape or arguments.model, sides=sides, figures={**notes, **figures}
    )


def _folder(arguments: argparse.Namespace, workshop: Path) -> Path:
    if arguments.shape:
        return shapes.write(arguments.shape, workshop / arguments.shape)
    return locate(arguments.model)


def _prepared(folder: Path, quantization: str, output: Path) -> Path:
    print(f"preparing {folder.name} in {quantization}", file=sys.stderr)
    # Nothing here asks how close it is: no layer has to stay in FP32 for that.
    precision = Precision(quantization, weight_bits(read_host()), floor=-1)
    prepare_apart(Order(folder=folder, name=output.name, precision=precision, output=output))
    return output


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """What one daemon was seen to do; memory in bytes, `idle` as a share of one core."""

    start_seconds: float
    pss: int
    rss: int
    idle: float


def _measure_daemons(
    households: Mapping[str, Sequence[Path]], workshop: Path, arguments: argparse.Namespace
) -> list[Side]:
    texts, environ = _texts(arguments), bytecode.keeping(workshop / "bytecode")
    visits: dict[str, list[_Visit]] = {name: [] for name in households}
    for number in range(arguments.rounds + 1):
        for name, served in households.items():
            visit = _visit(served, environ, texts, arguments.idle_seconds if number else 0)
            if number:  # the first round compiles
                visits[name].append(visit)
    return [side for each in visits.items() for side in _sides(*each)]


def _sides(name: str, visits: Sequence[_Visit]) -> list[Side]:
    return [
        Side(f"start to first answer, {name}", "s", [each.start_seconds for each in visits]),
        Side(f"PSS, warm, {name}", "MB", [each.pss / _MB for each in visits]),
        Side(f"RSS, warm, {name}", "MB", [each.rss / _MB for each in visits]),
        Side(f"idle, {name}", "% of a core", [100 * each.idle for each in visits]),
    ]


def _visit(
    served: Sequence[Path], environ: Mapping[str, str], texts: Sequence[str], idle_seconds: float
) -> _Visit:
    with _answering(served, environ) as (process, client, seconds):
        _load(client, texts, rerank=len(served) > 1)
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


def _load(client: Client, texts: Sequence[str], *, rerank: bool) -> None:
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(lambda text: client.embed([text]), texts))
    if rerank:
        for start in range(0, len(texts), _DOCUMENTS):
            query, *documents = texts[start : start + _DOCUMENTS]
            client.rerank(query[:_QUERY_CHARACTERS], documents or [query])


def _idle(pid: int, seconds: float) -> float:
    before = memory.computed(pid)
    time.sleep(seconds)
    return (memory.computed(pid) - before) / seconds


def _texts(arguments: argparse.Namespace) -> list[str]:
    """Return as many texts as were asked for, of mixed lengths."""
    if arguments.data.is_file():
        lines = arguments.data.read_text("utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines[: arguments.texts]]
    else:
        texts = [str(text) for text in probe_inputs("embed")]
    return [texts[i % len(texts)] for i in range(arguments.texts)]
