"""What models' weights take of a process's memory, each in a process of its own (`bench.growth`).

Weights that are mapped from the artifact come into memory as they are touched, and can be
dropped from it at any time: they are counted as found, and again as if all of them had been
touched.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import Side
from sidecar.models import manifest as manifests

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


def measure(
    artifacts: Mapping[str, Path], tiny: Path, rounds: int
) -> tuple[list[Side], dict[str, float]]:
    """Return the sides and the figures of `artifacts`, which are named after quantizations."""
    sides = {name: _sides(name, each) for name, each in look(artifacts, tiny, rounds).items()}
    figures = dict(_figures(artifacts, sides))
    return [side for both in sides.values() for side in both], figures


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
    command = [sys.executable, "-m", "bench.growth", str(tiny), str(artifact)]
    return Resident(**json.loads(subprocess.check_output(command)))
