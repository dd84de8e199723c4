"""What models' weights take of a process's memory, each in a process of its own (`bench.growth`).

Weights that are mapped from the artifact come into memory as they are touched, and can be
dropped from it at any time: they are counted as found, and again as if all of them had been
touched.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import Chart, Side, Table, point, told
from sidecar.models import manifest as manifests

_NAMES = {"none": "FP32"}  # what people call it
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes by which a process grew, and those of weights that it has mapped but not touched."""

    grown: int
    untouched: int

    @property
    def whole(self) -> int:
        """What it would be if all of the weights had been touched."""
        return self.grown + self.untouched


@dataclass(frozen=True, slots=True)
class Weights:
    """What the weights of a model take, by quantization."""

    sides: Sequence[Side]
    table: Table
    chart: Chart


def measure(artifacts: Mapping[str, Path], tiny: Path, rounds: int, model: str) -> Weights:
    """Measure `artifacts` of `model`, which are named after quantizations."""
    sides = {name: _sides(name, each) for name, each in look(artifacts, tiny, rounds).items()}
    rows = [_row(name, artifacts[name], *each) for name, each in sides.items()]
    head = ("", "stored", "in memory", "every row touched", "that, of FP32's bytes")
    return Weights(
        sides=[side for both in sides.values() for side in both],
        table=Table("What the weights take of a process", head, rows),
        chart=_chart(model, {name: touched for name, (_, touched) in sides.items()}),
    )


def look(artifacts: Mapping[str, Path], tiny: Path, rounds: int) -> dict[str, list[Resident]]:
    """Return what was found of each of `artifacts` in each of `rounds`; they take turns.

    `tiny` is the artifact of a model that hardly takes anything.
    """
    found: dict[str, list[Resident]] = {name: [] for name in artifacts}
    for _ in range(rounds):
        for name, artifact in artifacts.items():
            found[name].append(_measure_apart(tiny, artifact))
    return found


def _sides(name: str, found: Sequence[Resident]) -> tuple[Side, Side]:
    return (
        Side(f"weights in {name}", "MB", [each.grown / _MB for each in found]),
        Side(f"weights in {name}, all touched", "MB", [each.whole / _MB for each in found]),
    )


def _row(name: str, artifact: Path, grown: Side, touched: Side) -> tuple[str, ...]:
    manifest = manifests.read(artifact)
    stored, fp32 = manifest.bytes_weights / _MB, manifest.bytes_fp32 / _MB
    held = (f"{told(size, 3)} MB" for size in (stored, grown.median, touched.median))
    return (_NAMES.get(name, name), *held, f"{100 * touched.median / fp32:.1f} %")


def _chart(model: str, touched: Mapping[str, Side]) -> Chart:
    sides = {_NAMES.get(name, name): side for name, side in touched.items()}
    return Chart(
        name="weights",
        title=f"{model}: what its weights take of a process's memory",
        about="MB: " + ", ".join(f"{name} {told(side.median, 3)}" for name, side in sides.items()),
        x="",
        y="MB, every row of the tables touched",
        series={model: [point(name, side) for name, side in sides.items()]},
    )


def _measure_apart(tiny: Path, artifact: Path) -> Resident:
    command = [sys.executable, "-m", "bench.growth", str(tiny), str(artifact)]
    return Resident(**json.loads(subprocess.check_output(command)))
