"""Each model in FP32, INT8 and INT4: memory and latency, beside what users have today.

Memory is that of a process of its own with nothing but the model, warm. Latency is that of a
batch of 16 texts of one length, from texts to vectors (or pairs to scores): the rows side by
side on the host's cores, as the daemon computes them, against sentence-transformers in FP32 and
PyTorch's `quantize_dynamic`, both with torch on as many threads. Closeness to FP32 is what the
artifact says of itself, and for PyTorch's INT8 the same on the same probes; random weights have
none.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import bytecode, lineup, model_tables, resident, tiny
from bench.lineup import Entry
from bench.lone import FP32, INT8, SIDECAR
from bench.model_tables import Memory, Study
from bench.report import Result, Side
from sidecar.host import read_host
from sidecar.models.manifest import Quality
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.prepare_subprocess import prepare_in_subprocess
from sidecar.plan import weight_bits

_MB = 1e6
_MEMORY_ROUNDS = 3  # at most: they hardly differ
_NAMES = {
    "none": "Sidecar FP32",
    "int8": "Sidecar INT8",
    "int4": "Sidecar INT4",
    FP32: model_tables.TODAY,
    INT8: "PyTorch dynamic INT8",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    lineup.add_arguments(parser)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/load-mixed/texts.jsonl"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 128, 256, 512],
                        metavar="TOKENS", help="as far as a model takes them")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)


def measure(arguments: argparse.Namespace) -> Result:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        workshop = Path(place)
        entries, missing = lineup.assemble(arguments, arguments.artifacts or workshop)
        environ = bytecode.keeping(workshop / "bytecode")
        engine = _engine(workshop)
        for order in _loads(entries[0]).values() if entries else ():
            _apart("bench.lone", order, environ)  # compiles
        studies = [_study(entry, engine, arguments, environ) for entry in entries]
    return model_tables.result(studies, missing)


def _engine(workshop: Path) -> Path:
    """Prepare a model that hardly takes memory beside what the engine itself does."""
    output, precision = workshop / "engine", Precision("int8", weight_bits(read_host()), floor=-1)
    folder = tiny.write(workshop / "tiny")
    prepare_in_subprocess(
        PrepareRequest(folder=folder, name="tiny", precision=precision, output=output)
    )
    return output


def _study(
    entry: Entry, engine: Path, arguments: argparse.Namespace, environ: Mapping[str, str]
) -> Study:
    print(f"measuring {entry.name}", file=sys.stderr)
    rounds = min(arguments.rounds, _MEMORY_ROUNDS)
    held = _held(entry, rounds, environ)
    weights = resident.look(entry.artifacts, engine, rounds)
    turns = _turns(entry, arguments, environ)
    memory = {}
    for side, (pss, rss) in held.items():
        stored, quality = _stored(entry, side, turns)
        memory[_NAMES[side]] = Memory(
            stored=stored / _MB,
            resident=_side(entry, side, "weights in memory", [r.whole for r in weights[side]])
            if side in weights
            else None,
            pss=_side(entry, side, "process, PSS", pss),
            rss=_side(entry, side, "process, RSS", rss),
            quality=quality if entry.trained else None,
        )
    manifests = entry.manifests
    return Study(
        name=entry.name,
        fp32=next(iter(manifests.values())).bytes_fp32 / _MB,
        memory=memory,
        latency=dict(_latency(entry, turns["seconds"])),
        kept={_NAMES[plan]: len(each.kept) for plan, each in manifests.items() if each.kept},
    )


def _held(
    entry: Entry, rounds: int, environ: Mapping[str, str]
) -> dict[str, tuple[list[int], list[int]]]:
    """Return the PSS and the RSS, by side, of processes that have just this model."""
    loads = _loads(entry)
    held: dict[str, tuple[list[int], list[int]]] = {side: ([], []) for side in loads}
    for _ in range(rounds):
        for side, order in loads.items():
            found = _apart("bench.lone", order, environ)
            for values, name in zip(held[side], ("pss", "rss"), strict=True):
                values.append(found[name])
    return held


def _loads(entry: Entry) -> dict[str, dict[str, Any]]:
    """Return what `bench.lone` is to load, by side."""
    facts = {"task": entry.description.task, "threads": read_host().cores}
    ours = {
        plan: {"side": SIDECAR, "folder": artifact, **facts}
        for plan, artifact in entry.artifacts.items()
    }
    return {**ours, **{s: {"side": s, "folder": entry.folder, **facts} for s in (FP32, INT8)}}


def _turns(entry: Entry, arguments: argparse.Namespace, environ: Mapping[str, str]) -> Any:
    description = entry.description
    order = {
        "task": description.task,
        "folder": entry.folder,
        "artifacts": entry.artifacts,
        "lengths": [n for n in arguments.lengths if n <= description.max_tokens],
        "rounds": arguments.rounds,
        "data": arguments.data,
        "threads": read_host().cores,
    }
    return _apart("bench.turns", order, environ)


def _apart(module: str, order: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    """Run a program of this package, which takes JSON and prints JSON.

    In a process of its own: what this one had mapped would count as shared with those whose
    memory is measured.
    """
    command = [sys.executable, "-m", module]
    text = json.dumps(order, default=str)
    done = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, text=True, check=True, env=environ
    )
    return json.loads(done.stdout)


def _stored(entry: Entry, side: str, turns: Any) -> tuple[int, Quality | None]:
    """Return the bytes of a side's weights, and how close it comes to FP32."""
    if side in entry.artifacts:
        manifest = entry.manifests[side]
        return manifest.bytes_weights, manifest.quality
    quality = Quality(**turns["quality"]) if side == INT8 else None
    return turns["weight_bytes"][side], quality


def _latency(
    entry: Entry, seconds: Mapping[str, Mapping[str, list[float]]]
) -> Iterator[tuple[int, dict[str, Side]]]:
    """Yield each length with the sides' times of a batch."""
    for tokens in next(iter(seconds.values())):
        yield (
            int(tokens),
            {
                _NAMES[side]: Side(
                    f"{entry.name}, {_NAMES[side]}, {tokens} tokens",
                    "ms",
                    [1e3 * s for s in by_length[tokens]],
                )
                for side, by_length in seconds.items()
            },
        )


def _side(entry: Entry, side: str, what: str, values: list[int]) -> Side:
    return Side(f"{entry.name}, {_NAMES[side]}, {what}", "MB", [value / _MB for value in values])
