"""Charts are drawn reproducibly."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.report import Chart, Point, draw

from .results import chart

LINES = Chart.from_map(chart())
BARS = replace(
    LINES,
    series={
        name: [Point(x, 2.0, 1.0, 3.0) for x in ("one", "a name of many words that is too long")]
        for name in ("another", "Sidecar int8")
    },
)
CHARTS = {
    "lines": LINES,
    "logarithmic": replace(LINES, log_y=True),
    "one line": replace(LINES, series={"Sidecar": LINES.series["Sidecar"]}),
    "bars": BARS,
    "logarithmic bars": replace(BARS, log_y=True),
    "one group": replace(BARS, series={name: each[:1] for name, each in BARS.series.items()}),
    "one series": replace(BARS, series={"another": BARS.series["another"]}),
}


@pytest.mark.parametrize("drawn", CHARTS.values(), ids=CHARTS)
def test_the_same_chart_gives_the_same_files(drawn: Chart, tmp_path: Path) -> None:
    """Drawing a chart twice gives the same bytes, so an unchanged result leaves no diff."""
    stems = [tmp_path / "once" / "chart", tmp_path / "again" / "chart"]
    draw(dict.fromkeys(stems, drawn))
    once, again = (stem.with_suffix(".svg").read_bytes() for stem in stems)
    assert once == again


@pytest.mark.slow
def test_our_series_come_first(tmp_path: Path) -> None:
    """Sidecar's series are drawn first, in whatever order a command lists them."""
    turned = replace(LINES, series=dict(reversed(LINES.series.items())))
    draw({tmp_path / "one": LINES, tmp_path / "other": turned})
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
