"""A chart → SVG: lines where x is a number, else bars with their values beside them.

The same chart gives the same bytes, for one version of matplotlib. The background is opaque, so
that a page may be light or dark. Sidecar's own series come first, and stand out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from statistics import mean
from textwrap import wrap
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from bench.report import Chart, Point, told

_INCHES_WIDE = 7.4
_LINES_INCHES = 4.2
_BAR_INCHES, _AROUND_BARS_INCHES = 0.29, 1.0
_LEGEND_INCHES, _TITLE_INCHES, _LABEL_INCHES = 0.22, 0.2, 0.17  # a row
_LEGEND_LETTERS, _TITLE_LETTERS, _LABEL_LETTERS = 88, 70, 34  # in a row
_THICKNESS, _BETWEEN_GROUPS = 0.84, 0.7  # of a bar's place
_MOST_MARKED = 24  # points of a line that are marked each
_MANY_STEPS = 300  # from here on a logarithmic axis has a label a power of ten
_MOST_PLACES = 10  # of a logarithmic x that are labelled each
_INK, _FAINT, _GRID = "#1f2328", "#59636e", "#d8dee4"
# Okabe and Ito's, which all kinds of eyes tell apart.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#4d4d4d")
_OTHERS = "#a3adb8"  # where bars have their names beside them
_MARKERS = "osD^vPX"
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.labelcolor": _FAINT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.12,
    "font.size": 9.5,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "path",  # the same letters everywhere
    "svg.hashsalt": "sidecar",
    "text.color": _INK,
    "xtick.color": _GRID,
    "xtick.labelcolor": _FAINT,
    "ytick.color": _GRID,
    "ytick.labelcolor": _FAINT,
}


def write(chart: Chart, stem: Path) -> None:
    """Draw the chart to `stem`.svg."""
    about = {"Title": chart.title, "Description": chart.about, "Date": None, "Creator": None}
    with matplotlib.style.context(_STYLE, after_reset=True):
        figure = _drawn(replace(chart, series=_own_first(chart.series)))
        figure.savefig(f"{stem}.svg", metadata=about)


def _is_own(name: str) -> bool:
    return name.casefold().startswith("sidecar")


def _own_first(series: Mapping[str, Sequence[Point]]) -> dict[str, Sequence[Point]]:
    return dict(sorted(series.items(), key=lambda each: not _is_own(each[0])))


def _drawn(chart: Chart) -> Figure:
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    named = any(isinstance(point.x, str) for each in chart.series.values() for point in each)
    inches = (_draw_bars if named else _draw_lines)(axes, chart)
    if axes.get_legend_handles_labels()[1]:
        inches += _explain(axes)
    title = _wrapped(chart.title, _TITLE_LETTERS)
    inches += _TITLE_INCHES * title.count("\n")
    figure.set_size_inches(_INCHES_WIDE, inches)
    figure.suptitle(title, x=0.016, ha="left", size=11.5, weight="bold")
    return figure


def _wrapped(text: str, letters: int) -> str:
    """Return `text` in as few lines as it needs, and these of about the same length."""
    rows = len(wrap(text, letters, break_on_hyphens=False))
    widths = range(max(1, len(text) // max(1, rows)), letters + 1)
    tried = (wrap(text, width, break_on_hyphens=False) for width in widths)
    return "\n".join(next((lines for lines in tried if len(lines) <= rows), [text]))


def _explain(axes: Axes) -> float:
    """Put the legend above the data; return its height."""
    names = axes.get_legend_handles_labels()[1]
    columns = max(1, min(len(names), _LEGEND_LETTERS // (max(map(len, names)) + 7)))
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.3, borderpad=0.1
    )
    return _LEGEND_INCHES * -(-len(names) // columns)


def _draw_lines(axes: Axes, chart: Chart) -> float:
    """Draw a line a series, and a band between what its values lie; return the height."""
    several = len(chart.series) > 1
    marked = max(map(len, chart.series.values())) <= _MOST_MARKED
    for index, (name, points) in enumerate(chart.series.items()):
        colour, strong = _COLOURS[index % len(_COLOURS)], _is_own(name) or not several
        xs = [float(point.x) for point in points]
        bounds = [point.low for point in points], [point.high for point in points]
        axes.fill_between(xs, *bounds, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            xs,
            [point.median for point in points],
            color=colour,
            linewidth=2.4 if strong else 1.4,
            marker=_MARKERS[index % len(_MARKERS)] if marked else "",
            markersize=6.5 if strong else 5,
            zorder=3 if strong else 2,
            label=name if several else None,
        )
    _scale_lines(axes, chart)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    return _LINES_INCHES


def _scale_lines(axes: Axes, chart: Chart) -> None:
    _scale(axes.xaxis, log=chart.log_x)
    _scale(axes.yaxis, log=chart.log_y)
    places = sorted({float(point.x) for each in chart.series.values() for point in each})
    if chart.log_x and len(places) <= _MOST_PLACES:
        axes.xaxis.set_major_locator(FixedLocator(places))
    if not chart.log_y:
        axes.set_ylim(0, 1.06 * axes.dataLim.y1)


@dataclass(frozen=True, slots=True)
class _Bar:
    place: float
    series: str
    point: Point


def _draw_bars(axes: Axes, chart: Chart) -> float:
    """Draw bars from left to right, those of an x together; return the height.

    Lying bars have room for names of any length.
    """
    bars = list(_bars(chart))
    groups = {bar.point.x for bar in bars}
    explained = len(groups) > 1 and len(chart.series) > 1
    inches = _label_groups(axes, bars, by_series=len(groups) == 1)
    for name, colour in _bar_colours(chart, explained=explained).items():
        look = {"color": colour, "height": _THICKNESS * _BAR_INCHES / inches}
        ours = [bar for bar in bars if bar.series == name]
        _draw_series(axes, ours, strong=_is_own(name), **look)
        if explained:
            axes.containers[-1].set_label(name)
    _scale_bars(axes, chart, bars)
    axes.set_xlabel(chart.y)
    return _AROUND_BARS_INCHES + inches * (bars[-1].place + 1)


def _bars(chart: Chart) -> Iterator[_Bar]:
    """Yield the bars from the top down."""
    place = 0.0
    for x in dict.fromkeys(point.x for points in chart.series.values() for point in points):
        for name, points in chart.series.items():
            for point in points:
                if point.x == x:
                    yield _Bar(place, name, point)
                    place += 1
        place += _BETWEEN_GROUPS if len(chart.series) > 1 else 0


def _bar_colours(chart: Chart, *, explained: bool) -> dict[str, str]:
    """Return each series' colour: its own where a legend explains it, else ours or others'."""
    if explained:
        return dict(zip(chart.series, cycle(_COLOURS)))
    own = any(map(_is_own, chart.series))
    return {name: _OTHERS if own and not _is_own(name) else _COLOURS[0] for name in chart.series}


def _draw_series(axes: Axes, bars: Sequence[_Bar], *, strong: bool, **look: Any) -> None:
    points = [bar.point for bar in bars]
    medians = [point.median for point in points]
    errors = (
        [point.median - point.low for point in points],
        [point.high - point.median for point in points],
    )
    axes.barh(
        [bar.place for bar in bars],
        medians,
        xerr=errors if any(map(any, errors)) else None,
        error_kw={"ecolor": _INK, "elinewidth": 1, "capsize": 2.5, "capthick": 1},
        **look,
    )
    for bar in bars:
        axes.annotate(
            told(bar.point.median, digits=3),
            (bar.point.high, bar.place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center_baseline",
            weight="bold" if strong else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )


def _label_groups(axes: Axes, bars: Sequence[_Bar], *, by_series: bool) -> float:
    """Put the names beside the bars; return the height that a bar then needs."""
    places: dict[str, list[float]] = {}
    for bar in bars:
        label = bar.series if by_series else str(bar.point.x)
        places.setdefault(_wrapped(label, _LABEL_LETTERS), []).append(bar.place)
    axes.set_yticks([mean(each) for each in places.values()], list(places), color=_INK)
    for label, text in zip(places, axes.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if _is_own(label) else "normal")
    axes.set_ylim(bars[-1].place + 0.6, -0.6)  # the first at the top
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    rows = max((label.count("\n") + 1.7) / len(each) for label, each in places.items())
    return max(_BAR_INCHES, _LABEL_INCHES * rows)


def _scale_bars(axes: Axes, chart: Chart, bars: Sequence[_Bar]) -> None:
    """Leave room for the values beside the bars."""
    _scale(axes.xaxis, log=chart.log_y)
    low, high = min(bar.point.low for bar in bars), max(bar.point.high for bar in bars)
    if chart.log_y:
        axes.set_xlim(low / 2, high * (2 * high / low) ** 0.14)
    else:
        axes.set_xlim(1.12 * min(0.0, low), 1.12 * max(0.0, high))


def _scale(axis: Axis, *, log: bool) -> None:
    if log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        low, high = axis.get_data_interval()
        steps = (1, 2, 5) if high < _MANY_STEPS * low else (1,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))
