"""What a model's weights take of a process's memory: `python -m bench.resident TINY ARTIFACT`.

It is the growth of PSS by loading a session and running a few short texts. What the engine
itself takes is there before, for the tiny model has been run; so are the tokenizers. Weights
that are mapped from the artifact come into memory as they are touched, and can be dropped from
it at any time: they are counted as found, and again as if all of them had been touched.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import memory
from bench.report import Side
from sidecar.encoder.runtime import Session
from sidecar.models import manifest as manifests
from sidecar.models.compute import forward, session_of
from sidecar.models.manifest import GRAPH, TOKENIZER
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row
from sidecar.models.tokenizer import Tokenizer

_TEXTS = 8
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes by which a process grew, and those of weights that it has mapped but not touched."""

    grown: int
    untouched: int


def measure(
    artifacts: Mapping[str, Path], tiny: Path, rounds: int
) -> tuple[list[Side], dict[str, float]]:
    """Return the sides and the figures of `artifacts`, which are named after quantizations."""
    found: dict[str, list[Resident]] = {name: [] for name in artifacts}
    for _ in range(rounds):
        for name, artifact in artifacts.items():
            found[name].append(_measure_apart(tiny, artifact))
    sides = {name: _sides(name, each) for name, each in found.items()}
    figures = dict(_figures(artifacts, sides))
    return [side for both in sides.values() for side in both], figures


def _sides(name: str, found: Sequence[Resident]) -> tuple[Side, Side]:
    return (
        Side(f"weights in {name}", "MB", [each.grown / _MB for each in found]),
        Side(
            f"weights in {name}, all touched",
            "MB",
            [(each.grown + each.untouched) / _MB for each in found],
        ),
    )


def _figures(
    artifacts: Mapping[str, Path], sides: Mapping[str, Sequence[Side]]
) -> Iterator[tuple[str, float]]:
    for name, artifact in artifacts.items():
        manifest = manifests.read(artifact)
        stored = Side(f"weights in {name}, stored", "MB", [manifest.bytes_weights / _MB])
        yield f"{stored.name}, MB", stored.median
        for side in (stored, *sides[name]):
            yield f"{side.name}, of FP32's bytes", side.median * _MB / manifest.bytes_fp32


def _measure_apart(tiny: Path, artifact: Path) -> Resident:
    command = [sys.executable, "-m", "bench.resident", str(tiny), str(artifact)]
    return Resident(**json.loads(subprocess.check_output(command)))


def main(tiny: Path, artifact: Path) -> None:
    rows, tiny_rows = _rows(artifact), _rows(tiny)
    sessions = [_used(tiny, tiny_rows)]
    # What has been freed is not there for the weights to move into, uncounted.
    ctypes.CDLL(None).malloc_trim(0)
    before = memory.held("self")["Pss"]
    sessions.append(_used(artifact, rows))
    grown = memory.held("self")["Pss"] - before
    print(json.dumps({"grown": grown, "untouched": memory.untouched("self", artifact)}))


def _rows(artifact: Path) -> list[Row]:
    description = manifests.read(artifact).description
    texts = probe_inputs(description.task)[:_TEXTS]
    return Tokenizer(artifact / TOKENIZER, description.max_tokens).rows(texts)


def _used(artifact: Path, rows: Sequence[Row]) -> Session:
    session = session_of(artifact / GRAPH, manifests.read(artifact).quantization)
    for row in rows:
        forward(session, "identity", row)
    return session


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
