"""A quantized encoder in process, against FP32, against onnxruntime's own, against its limit.

All sides run the same rows, unpadded, row by row, as many side by side as there are cores. The
limit is a graph of nothing but the model's integer multiplications; what else takes time is told
by operator. One short text alone is computed as the daemon does it, on all cores where that was
measured to be sooner.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from bench import dynamic, operators, texts
from bench.daemon import pause
from bench.report import Chart, Result, Side, Table, middle, point, spread, told
from sidecar.encoder.graph import build
from sidecar.encoder.nodes import CONTRIB, GraphWriter
from sidecar.encoder.recipes import Float32Recipe
from sidecar.encoder.runtime import Session
from sidecar.host import read_host
from sidecar.models import manifest as manifests
from sidecar.models.compute import session_of
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.layout import layout_of
from sidecar.models.manifest import GRAPH
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.rows import Row
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name, locate
from sidecar.plan import weight_bits

_OURS, _PRODUCTS, _FP32 = "Sidecar", "int8 products alone", "transformers fp32"
_SHORT_TOKENS = 16
_SHORT_ROUNDS, _SHORT_RUNS, _WARM_UP = 10, 20, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    texts.add_arguments(parser, count=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--quantization", choices=["int8", "int4"], default="int8")


def measure(arguments: argparse.Namespace) -> Result:
    host = read_host()
    asked = texts.read(arguments.data, arguments.texts)
    folder = locate(arguments.model)
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        artifact = Path(place) / "artifact"
        precision = Precision(arguments.quantization, weight_bits(host), 0.9)
        prepare(PrepareRequest(folder=folder, name="model", precision=precision, output=artifact))
        rows = load(artifact).tokenize(asked)
        products = _products(folder)
        sessions = _sessions(folder, artifact, products, Path(place))
        manifest = manifests.read(artifact)
        layout = layout_of(artifact, Path(place), host.cores)
        lone = {
            _OURS: session_of(layout.graph, manifest.quantization, layout.threads),
            _PRODUCTS: Session(products, threads=layout.threads),
        }
        times = operators.milliseconds(artifact / GRAPH, manifest.quantization, rows, Path(place))
    seconds = _measure_rows(sessions, rows, host.cores, arguments.rounds)
    short = _measure_short(lone, folder)
    medians = {name: median(values) for name, values in seconds.items()}
    ours = medians[_OURS]
    alone = {name: side.median for name, side in short.items()}
    sides = [
        Side(name, "texts/s", [len(rows) / each for each in values])
        for name, values in seconds.items()
    ]
    quality = manifest.quality
    assert quality is not None
    what = f"{display_name(arguments.model)} in {manifest.quantization}"
    return Result(
        title=f"{what}, {len(rows)} texts, {sum(row.tokens for row in rows)} tokens",
        sides=[*sides, *short.values()],
        tables=[
            _table_of_rows(sides),
            _table_of_short([*short.values()]),
            _table_of_operators(times),
        ],
        charts=[_chart_of_rows(what, sides), _chart_of_short(what, [*short.values()])],
        figures={
            "against onnxruntime FP32": medians["onnxruntime fp32"] / ours,
            "against quantize_dynamic": medians["onnxruntime quantize_dynamic"] / ours,
            "share of the time that the multiplications need": medians[_PRODUCTS] / ours,
            "the same, if only they and attention took any": _bound(times),
            f"{_SHORT_TOKENS} tokens, against transformers FP32": alone[_FP32] / alone[_OURS],
            "the same, if only the multiplications took any time": alone[_FP32] / alone[_PRODUCTS],
            "weights, of FP32's": manifest.bytes_weights / manifest.bytes_fp32,
            "cosine to FP32, mean": quality.mean,
            "cosine to FP32, min": quality.min,
        },
    )


def _table_of_rows(sides: Sequence[Side]) -> Table:
    ours = sides[0].median
    rows = [(each.name, spread(each), f"{ours / each.median:.2f}") for each in sides]
    return Table("In process, a text a core", ("", "texts/s", "Sidecar, times as fast"), rows)


def _table_of_short(sides: Sequence[Side]) -> Table:
    ours = middle("", sides[0]).median
    points = {each.name: middle("", each) for each in sides}
    rows = [
        (
            name,
            f"{each.median:.2f} ({each.low:.2f} to {each.high:.2f})",
            f"{each.median / ours:.2f}",
        )
        for name, each in points.items()
    ]
    head = ("", "ms (half lie between)", "Sidecar, times as fast")
    return Table(f"One text of {_SHORT_TOKENS} tokens", head, rows)


def _table_of_operators(times: Mapping[str, float]) -> Table:
    whole = sum(times.values())
    rows = [(name, f"{time:.2f}", f"{time / whole:.1%}") for name, time in times.items()]
    return Table("Where the time goes", ("on one thread", "ms a text", "share"), rows)


def _bound(times: Mapping[str, float]) -> float:
    multiplications = times[operators.MULTIPLICATIONS]
    return multiplications / (multiplications + times[operators.ATTENTION])


def _chart_of_rows(what: str, sides: Sequence[Side]) -> Chart:
    return Chart(
        name="throughput",
        title=f"{what}, in process: texts a second",
        about="Texts a second: " + ", ".join(f"{s.name} {told(s.median, 3)}" for s in sides),
        x="",
        y="texts/s",
        series={side.name: [point("", side)] for side in sides},
    )


def _chart_of_short(what: str, sides: Sequence[Side]) -> Chart:
    return Chart(
        name="short",
        title=f"{what}, in process: one text of {_SHORT_TOKENS} tokens",
        about="Milliseconds: " + ", ".join(f"{s.name} {told(s.median, 3)}" for s in sides),
        x="",
        y="ms; whiskers hold half of the runs",
        series={side.name: [middle("", side)] for side in sides},
    )


def _products(folder: Path) -> bytes:
    recipe = _ProductsAlone()
    build(read_encoder(folder, describe(folder)), recipe)
    return recipe.model()


def _sessions(folder: Path, artifact: Path, products: bytes, place: Path) -> dict[str, Session]:
    fp32, int8 = dynamic.write(folder, place)
    return {
        _OURS: session_of(artifact / GRAPH, manifests.read(artifact).quantization),
        "onnxruntime fp32": Session(fp32),
        "onnxruntime quantize_dynamic": Session(int8),
        _PRODUCTS: Session(products),
    }


class _ProductsAlone(Float32Recipe):
    """Notes the model's multiplications, and returns a graph of them and nothing else."""

    def __init__(self) -> None:
        self._shapes: list[tuple[int, int]] = []

    def matmul(self, graph: GraphWriter, name: str, linear: Any, x: str, **options: Any) -> Any:
        self._shapes.append(linear.weight.shape)
        return super().matmul(graph, name, linear, x, **options)

    def model(self) -> bytes:
        graph = GraphWriter()
        rng = np.random.default_rng(0)
        step, zero = graph.scalar(0.01), graph.scalar(128, np.uint8)
        tokens = graph.op("Shape", "ids", start=1, end=2)
        sums = []
        for index, (outputs, inputs) in enumerate(self._shapes):
            width = graph.constant(np.array([inputs]))
            shape = graph.op("Concat", tokens, width, axis=0)
            x = graph.op("Expand", graph.constant(np.array([[7]], np.uint8)), shape)
            weight = rng.integers(-64, 65, (inputs, outputs)).astype(np.int8)
            w = graph.constant(weight, f"w{index}")
            scales = graph.constant(np.full(outputs, 0.01, np.float32))
            y = graph.op("MatMulIntegerToFloat", x, w, step, scales, zero, domain=CONTRIB)
            first = graph.constant(np.array([0]))
            sums.append(graph.op("Slice", y, first, graph.constant(np.array([1])), first))
        graph.rename(graph.op("Concat", *sums, axis=1), "vectors")
        rows = [
            helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"])
            for name in ("ids", "token_types")
        ]
        vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, None)
        return graph.model(rows, [vectors]).SerializeToString()


def _measure_rows(
    sessions: dict[str, Session], rows: Sequence[Row], threads: int, rounds: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds + 1):
            for name, session in sessions.items():
                pause()
                started = time.perf_counter()
                list(pool.map(lambda row, run=session.run: run(*_inputs(row)), rows))
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
    return seconds


def _inputs(row: Row) -> tuple[Any, Any]:
    return row.ids[np.newaxis], row.token_types[np.newaxis]


def _measure_short(sessions: Mapping[str, Session], folder: Path) -> dict[str, Side]:
    import torch  # noqa: PLC0415 - seconds
    from transformers import AutoModel  # noqa: PLC0415

    model = AutoModel.from_pretrained(folder).eval()
    ids = np.random.default_rng(0).integers(1_000, 30_000, (1, _SHORT_TOKENS))
    tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones_like(torch.tensor(ids))}
    calls: dict[str, Callable[[], object]] = {
        name: partial(session.run, ids, np.zeros_like(ids)) for name, session in sessions.items()
    }
    calls[_FP32] = lambda: model(**tensors)
    values: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(_SHORT_ROUNDS):
            for name, call in calls.items():
                pause()
                values[name] += _timed(call)
    return {
        name: Side(f"{name}, {_SHORT_TOKENS} tokens", "ms", each) for name, each in values.items()
    }


def _timed(call: Callable[[], object]) -> list[float]:
    """Return the milliseconds of calls one after the other, as a stream of lone queries comes.

    Not in turn call by call: PyTorch's threads spin for a while after each of its own, on the
    cores that the next side needs.
    """
    values = []
    for _ in range(_WARM_UP + _SHORT_RUNS):
        started = time.perf_counter()
        call()
        values.append((time.perf_counter() - started) * 1e3)
    return values[_WARM_UP:]
