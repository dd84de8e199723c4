"""What a measurement returns, and how it is shown: medians with their spread, and the host."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from sidecar.host import read_host


def host_facts() -> dict[str, Any]:
    host = read_host()
    return {
        "cpu": host.cpu_model,
        "cores": host.cores,
        "isa": sorted(host.isa),
        "load_average": os.getloadavg()[0],
    }


@dataclass(frozen=True, slots=True)
class Side:
    """One way of doing the work, measured several times in turn with the others."""

    name: str
    unit: str
    values: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Result:
    """`failed` names the figures that must be 0 and are not."""

    title: str
    sides: Sequence[Side]
    figures: Mapping[str, Any]
    failed: Sequence[str] = ()
    host: Mapping[str, Any] = field(default_factory=host_facts)

    def as_map(self) -> dict[str, Any]:
        sides = {
            side.name: {"unit": side.unit, "median": side.median, "values": list(side.values)}
            for side in self.sides
        }
        return {
            "title": self.title,
            "sides": sides,
            "figures": dict(self.figures),
            "failed": list(self.failed),
            "host": dict(self.host),
        }


def show(result: Result) -> None:
    table = Table("", "median", "lowest", "highest", "unit", box=None, title=result.title)
    for side in result.sides:
        low, high = min(side.values), max(side.values)
        table.add_row(side.name, f"{side.median:.4g}", f"{low:.4g}", f"{high:.4g}", side.unit)
    console = Console()
    console.print(table)
    for name, value in result.figures.items():
        console.print(
            f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}"
        )
    for name in result.failed:
        console.print(f"  FAILED: {name}", style="bold red")
    console.print("  host: " + ", ".join(f"{k} {v}" for k, v in result.host.items()), style="dim")
