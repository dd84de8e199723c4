"""Draws a plot as an SVG that is embedded in a page and takes its colours from it.

Colours are the page's CSS variables: `--ink`, `--grid`, `--card`, and `--series-1` to `--series-6`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholders for the variables while matplotlib draws, as it does not support variables.
INK, GRID, PAPER = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0{index}0000" for index in range(4, 10))
_VARIABLES = {INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--card)"} | {
    color: f"var(--series-{index})" for index, color in enumerate(SERIES, 1)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sidecar",  # the same data give the same page
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.color": INK,
    "ytick.left": False,
    "ytick.minor.left": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot to draw: `paint` returns whether it drew anything; if not, `nothing` is shown.

    `size` is its width and height in inches; the page keeps their proportion.
    """

    title: str
    about: str
    nothing: str
    paint: Callable[[Axes], bool]
    size: tuple[float, float] = (4.9, 2.75)


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot; `svg` is None if there is nothing to show, and `about` then says so."""

    title: str
    about: str
    svg: str | None


def draw(name: str, drawing: Drawing) -> Plot:
    """Return the plot; `name` prefixes its ids and must be unique in the page."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=drawing.size, layout="constrained")
        if not drawing.paint(figure.add_subplot()):
            return Plot(drawing.title, drawing.nothing, None)
        return Plot(drawing.title, drawing.about, _svg_of(figure, name, drawing))


def _svg_of(figure: Figure, name: str, drawing: Drawing) -> str:
    """Return the figure as an SVG element that scales, is accessible, and has unique ids."""
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"#(?=[A-Za-z]\w*[\")])", f"#{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None
    head = (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{name}-title" '
        f'aria-describedby="{name}-about">'
        f'<title id="{name}-title">{escape(drawing.title)}</title>'
        f'<desc id="{name}-about">{escape(drawing.about)}</desc>'
    )
    return head + svg[svg.index(">") + 1 :]
