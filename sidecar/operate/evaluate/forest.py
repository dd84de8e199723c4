"""The differences from FP32 on one data set → a forest plot: dots, intervals, a line at zero."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sidecar.operate.evaluate.cells import percent, typeset
from sidecar.operate.evaluate.evaluation import Difference, Judged
from sidecar.operate.page.drawing import INK, PAPER, SERIES, Drawing

_WIDTH = 4.2
_MARGIN, _ROW, _GAP = 0.75, 0.2, 0.14  # inches: around the plot, per interval, between metrics
_LEAST = 1e-3  # how far the axis reaches if nothing differs
ABOUT = (
    "A dot is a figure minus that of FP32, the line through it the 95 % interval, the number "
    "beside it the difference in percent of FP32's figure. If the line touches zero, the dot is "
    "hollow: within noise, as these data cannot tell the two apart."
)
"""How to read the plot."""
_SIDES = typeset("\N{LEFTWARDS ARROW} worse      better \N{RIGHTWARDS ARROW}")
_NOTHING = "Nothing was compared with FP32."


@dataclass(frozen=True, slots=True)
class _Row:
    """An interval, its distance from the top in inches, and the index of its plan."""

    down: float
    plan: int
    found: Difference


def forest(judged: Judged) -> Drawing:
    """Return the plot of all metrics and plans compared on these data."""
    metrics, plans = len(judged.exact.figures), len(judged.compared)
    height = _MARGIN + metrics * (plans * _ROW + _GAP)
    title = f"{judged.name}: differences to FP32"
    return Drawing(title, ABOUT, _NOTHING, partial(_paint, judged), (_WIDTH, height))


def _paint(judged: Judged, axes: Axes) -> bool:
    rows = list(_rows(judged))
    for row in rows:
        _paint_row(axes, row)
    if rows:
        _dress(axes, judged, rows)
    return bool(rows)


def _rows(judged: Judged) -> Iterator[_Row]:
    step = len(judged.compared) * _ROW + _GAP
    for place in range(len(judged.exact.figures)):
        for plan, outcome in enumerate(judged.compared):
            if found := outcome.figures[place].difference:
                yield _Row(place * step + plan * _ROW, plan, found)


def _paint_row(axes: Axes, row: _Row) -> None:
    found, color = row.found, SERIES[row.plan]
    ends = (found.low, found.high)
    axes.plot(ends, (row.down, row.down), color=color, linewidth=2, solid_capstyle="round")
    face = PAPER if found.within_noise else color
    axes.plot(
        found.value, row.down, "o", color=color, markersize=5.5, markerfacecolor=face, zorder=3
    )
    share = typeset(percent(found))
    beside = ("axes fraction", "data")
    axes.annotate(share, (1.02, row.down), xycoords=beside, va="center", annotation_clip=False)


def _dress(axes: Axes, judged: Judged, rows: list[_Row]) -> None:
    """Label the axes; zero is in the middle, so that worse and better have equal room."""
    plans = len(judged.compared)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    far = max(_LEAST, *(abs(end) for row in rows for end in (row.found.low, row.found.high)))
    axes.set_xlim(-1.08 * far, 1.08 * far)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, symmetric=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: typeset(f"{at:+g}") if at else "0"))
    axes.set_xlabel(_SIDES)
    middles = [row.down + (plans - 1) * _ROW / 2 for row in rows if row.plan == 0]
    axes.set_yticks(middles, [figure.metric for figure in judged.exact.figures])
    axes.set_ylim(rows[-1].down + _ROW, rows[0].down - _ROW)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    if plans > 1:
        _explain(axes, judged)


def _explain(axes: Axes, judged: Judged) -> None:
    """Put the legend of the plans' colours above the plot."""
    for place, outcome in enumerate(judged.compared):
        axes.plot([], [], color=SERIES[place], linewidth=2, label=outcome.plan)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0)
