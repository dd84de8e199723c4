"""What a measurement returns, and how it is shown: medians with their spread, and the host.

The same tables are printed on a terminal and stand in the documentation as Markdown.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

from rich.console import Console
from rich.table import Table as RichTable

from sidecar.host import read_host

_THOUSAND = 1_000
_NO_BREAK_SPACE = "\u00a0"


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
class Table:
    """Cells as people read them; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Point:
    """A measured value with its spread, at a place of the x axis: a number, or a name."""

    x: float | str
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot: a line a series where x is a number, else bars side by side.

    `name` is the stem of its files; `about` is one sentence for those who cannot see it.
    """

    name: str
    title: str
    about: str
    x: str
    y: str
    series: Mapping[str, Sequence[Point]]
    log_x: bool = False
    log_y: bool = False

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> Self:
        """Return the chart that `Result.as_map` has written."""
        series = {
            name: [Point(**point) for point in points] for name, points in fields["series"].items()
        }
        return cls(**{**fields, "series": series})


@dataclass(frozen=True, slots=True)
class Result:
    """`failed` names the figures that must be 0 and are not, `skipped` what was left out and why.

    `tables` are shown in place of a plain list of `sides`.
    """

    title: str
    sides: Sequence[Side]
    figures: Mapping[str, Any]
    failed: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    host: Mapping[str, Any] = field(default_factory=host_facts)

    def as_map(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        sides = {
            side.name: {"unit": side.unit, "median": side.median, "values": list(side.values)}
            for side in self.sides
        }
        assert len(sides) == len(self.sides), "each side has a name of its own"
        return {
            "title": self.title,
            "sides": sides,
            "figures": dict(self.figures),
            "failed": list(self.failed),
            "skipped": dict(self.skipped),
            "tables": [asdict(table) for table in tables_of(self)],
            "charts": [asdict(chart) for chart in self.charts],
            "host": dict(self.host),
        }


def point(x: float | str, side: Side) -> Point:
    """Return a side as a point of a chart."""
    return Point(x, side.median, min(side.values), max(side.values))


def middle(x: float | str, side: Side) -> Point:
    """Return a side as a point that half of its values lie in: of many, a few are far off."""
    low, half, high = quantiles(side.values, n=4)
    return Point(x, half, low, high)


def told(value: Any, digits: int = 4) -> str:
    """Return a value as people read it: the digits that count, thousands apart."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or abs(value) >= _THOUSAND:
        return f"{value:,.0f}".replace(",", _NO_BREAK_SPACE)
    return f"{value:.{digits}g}"


def spread(side: Side) -> str:
    """Return a side's median, and between what its values lie."""
    half, low, high = (told(each, 3) for each in (side.median, min(side.values), max(side.values)))
    return f"{half} ({low} to {high})"


def tables_of(result: Result) -> Sequence[Table]:
    """Return the result's tables: its own, or its sides as one."""
    if result.tables:
        return result.tables
    rows = [
        (
            side.name,
            *map(told, (side.median, min(side.values), max(side.values))),
            side.unit,
        )
        for side in result.sides
    ]
    return [Table(result.title, ("", "median", "lowest", "highest", "unit"), rows)]


def figures_of(result: Result) -> Iterator[tuple[str, str]]:
    """Yield each figure's name, and its value as people read it."""
    for name, value in result.figures.items():
        yield name, told(value)


def show(result: Result) -> None:
    """Print the result on the terminal."""
    console = Console()
    for table in tables_of(result):
        shown = RichTable(*table.head, box=None, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        console.print()
    for name, value in figures_of(result):
        console.print(f"  {name}: {value}")
    for name, reason in result.skipped.items():
        console.print(f"  skipped: {name} ({reason})", style="yellow")
    for name in result.failed:
        console.print(f"  FAILED: {name}", style="bold red")
    console.print("  host: " + ", ".join(f"{k} {v}" for k, v in result.host.items()), style="dim")


def draw(charts: Mapping[Path, Chart]) -> None:
    """Draw each chart to `stem`.svg."""
    # Here alone: a process that measures memory maps nothing that it does not need.
    from bench import plots  # noqa: PLC0415

    for stem, chart in charts.items():
        stem.parent.mkdir(parents=True, exist_ok=True)
        plots.write(chart, stem)


def need_plots() -> None:
    """End the program, and say so, where the extra `plots` is missing."""
    if find_spec("matplotlib") is None:
        raise SystemExit("plots need matplotlib: install Sidecar with its extra `plots`")
