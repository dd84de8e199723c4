"""The report's figures, tables and plots."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from sidecar.operate import plots as drawn
from sidecar.operate import report
from sidecar.operate.history import History
from sidecar.operate.page.drawing import INK, SERIES, Drawing, draw
from sidecar.operate.records import Record
from sidecar.operate.report import render, told

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
DAY = 86_400
MB = 10**6


@pytest.fixture(autouse=True)
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the plots, which take time and have their own tests here."""
    monkeypatch.setattr(report, "plots", lambda _: [])


def event(at: float, name: str, **fields: object) -> Record:
    ts = datetime.fromtimestamp(at, UTC).isoformat()
    return Record(at, {"ts": ts, "level": "info", "event": name, **fields})


def request(at: float, **fields: object) -> Record:
    return event(at, "request.completed", **{"total_ms": 10.0, "rows": 2, "tokens": 30, **fields})


def history_of(*records: Record) -> History:
    history = History()
    for record in records:
        history.add(record)
    return history


class Page(HTMLParser):
    """The text of a page's figures and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.rows: list[list[str]] = []
        self.figures: dict[str, list[str]] = {}
        self._kind = ""
        self.feed(text)

    def handle_starttag(self, tag: str, _attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "dt", "dd"}:
            self._kind = tag
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._kind:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self.rows[-1].append(self.cells[-1])
        elif tag == "dt":
            self.figures[self.cells[-1]] = []
        elif tag == "dd":
            list(self.figures.values())[-1].append(self.cells[-1])
        if tag in {"td", "dt", "dd"}:
            self._kind = ""


def table_of(history: History, title: str) -> list[list[str]]:
    """Return the rows of one table."""
    page = render(history, "x.log", NOW)
    section = re.search(rf"<h2 id=\"table-\d\">{title}</h2>.*?</section>", page, re.DOTALL)
    assert section is not None
    return [row for row in Page(section[0]).rows if row]


def test_the_head_says_of_what_time_it_is() -> None:
    """The head shows the time span, the number of events, and the width of steps."""
    history = history_of(request(0.0), request(3_601.0))
    page = render(history, "x.log", NOW)
    for part in (
        "1970-01-01 00:00:00 UTC to 1970-01-01 01:00:01 UTC (1 h 1 s)",
        "2 events from x.log. Written 2026-11-22 10:30:00 UTC.",
        "in steps of 1 min.",
    ):
        assert part in page
    assert (told(1), told(0), told(12_345)) == ("1 event", "0 events", "12,345 events")


def test_figures() -> None:
    """The headline figures are weighted, and a missing value has no card."""
    history = history_of(
        *(request(float(at), total_ms=float(at)) for at in range(1, 102)),
        request(200.0, total_ms=51.0, sample=0.5),
        event(200.0, "request.failed", code="overloaded", sample=0.2),
        event(201.0, "server.memory", pss_bytes=150 * MB),
        event(0.5, "server.listening"),
    )
    assert Page(render(history, "x", NOW)).figures == {
        "answered": ["103", "requests"],
        "failed": ["5", "4.6% of all"],
        "texts": ["206", "3,090 tokens"],
        "median latency": [
            "51\N{NO-BREAK SPACE}ms",
            "p95 96\N{NO-BREAK SPACE}ms, p99 100\N{NO-BREAK SPACE}ms",
        ],
        "memory": ["150 MB", "last reported"],
        "starts": ["1", "of the daemon"],
    }
    assert Page(render(history_of(event(0.0, "x")), "x", NOW)).figures == {
        "answered": ["0", "requests"],
        "failed": ["0", ""],
        "texts": ["0", "0 tokens"],
        "starts": ["0", "of the daemon"],
    }


def test_what_was_said_of_quantization() -> None:
    """Quantization events are listed by model, with sizes, closeness and the reason."""
    history = history_of(
        event(1.0, "quantization.selected", model="b", quantization="int8", message="it is set"),
        event(
            2.0, "quantization.applied", model="a", quantization="int8", bytes_before=90 * MB,
            bytes_after=23 * MB, cosine_mean=0.99894, cosine_min=0.9935,
        ),
        event(
            3.0, "quantization.applied", model="b", quantization="int4", bytes_before=90 * MB,
            score_closeness_mean=0.98, rank_agreement=0.995, reason="a reason", message="another",
        ),
    )  # fmt: skip
    assert table_of(history, "Quantization") == [
        ["a", "applied", "int8", "90 MB → 23 MB", "cosine 0.9989, at worst 0.9935", ""],
        ["b", "applied", "int4", "", "score 0.9800, same order 99.5%", "a reason"],
        ["b", "selected", "int8", "", "", "it is set"],
    ]


def test_what_failed() -> None:
    """The twenty most frequent failures are listed, the most frequent first."""
    failures = [
        event(float(at), "request.failed", code=f"c{kind}", reason="x")
        for kind in range(25)
        for at in range(kind + 1)
    ]
    rows = table_of(history_of(*failures), "What failed, and why")
    assert rows[0] == ["request.failed", "c24", "x", "25"]
    assert [row[1] for row in rows] == [f"c{kind}" for kind in range(24, 4, -1)]


def test_the_slowest_batches() -> None:
    """Slow batches are listed with their time, model, lane, size, wait and compute time."""
    slow = event(
        5.0, "batch.completed", model="m", lane="bulk", rows=3, tokens=40, queue_ms=0.123,
        compute_ms=2_345.6,
    )  # fmt: skip
    older = event(6.0, "batch.completed", model="m", priority="interactive", compute_ms=999.4)
    assert table_of(history_of(older, slow), "Slowest batches") == [
        ["1970-01-01 00:00:05 UTC", "m", "bulk", "3", "40", "0.123\N{NO-BREAK SPACE}ms",
         "2.35\N{NO-BREAK SPACE}s"],
        ["1970-01-01 00:00:06 UTC", "m", "interactive", "", "", "", "999\N{NO-BREAK SPACE}ms"],
    ]  # fmt: skip


def test_who_asked_most() -> None:
    """The busiest clients are listed by user and process, with their tokens and times."""
    asked = [request(1.0, peer_uid=7, peer_pid=1, total_ms=float(ms)) for ms in range(1, 102)]
    other = event(1.0, "request.completed", peer_uid=8, peer_pid=2)
    assert table_of(history_of(*asked, other), "Busiest clients") == [
        ["7", "1", "101", "3,030", "51\N{NO-BREAK SPACE}ms", "100\N{NO-BREAK SPACE}ms"],
        ["8", "2", "1", "", "", ""],
    ]


Painted = Callable[[History, str], Axes | None]


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> Painted:
    """Return a function that paints the plot of a title, or returns None if there is none."""
    monkeypatch.setattr(drawn, "draw", lambda _, drawing: drawing)

    def paint(history: History, title: str) -> Axes | None:
        (drawing,) = (each for each in drawn.plots(history) if each.title == title)
        axes = Figure().add_subplot()
        return axes if drawing.paint(axes) else None

    return paint


def lines_of(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Return the labelled lines, with times in seconds."""
    return {
        str(line.get_label()): ([x * DAY for x in line.get_xdata()], list(line.get_ydata()))
        for line in axes.lines
        if not str(line.get_label()).startswith("_")
    }


@pytest.mark.parametrize(
    ("title", "field"), [("Latency", "total_ms"), ("Time in the queue", "queue_ms")]
)
def test_times_are_plotted_by_percentile(painted: Painted, title: str, field: str) -> None:
    """Percentiles are plotted at the midpoint of each step, with gaps where it is empty."""
    other = {"total_ms": "queue_ms", "queue_ms": "total_ms"}[field]
    first = [request(0.5, **{field: float(ms), other: 7.0}) for ms in range(1, 102)]
    axes = painted(history_of(*first, request(2.5, **{field: 5.0, other: 7.0})), title)
    assert axes is not None
    found = lines_of(axes)
    assert list(found) == ["p50", "p95", "p99"]
    for label, value in (("p50", 51), ("p95", 96), ("p99", 100)):
        xs, ys = found[label]
        assert xs == pytest.approx([0.5, 1.5, 2.5])
        assert (ys[0], ys[2]) == pytest.approx((value, 5))
        assert math.isnan(ys[1])
    assert painted(history_of(event(0.0, "x", pss_bytes=5)), title) is None


def test_times_are_plotted_on_a_scale_that_shows_all(painted: Painted) -> None:
    """Times are on a log scale that shows 1 ms beside 1 s; a time of 0 does not stretch it."""
    axes = painted(
        history_of(request(0.5, total_ms=0.0), request(1.5, total_ms=2_000.0)), "Latency"
    )
    assert axes is not None
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert 0 < low <= 2_000 < high
    label = axes.yaxis.get_major_formatter()
    assert [label(value, 0) for value in (0.5, 1, 999, 1_000, 3_000)] == [
        "0.5 ms", "1 ms", "999 ms", "1 s", "3 s",
    ]  # fmt: skip


def test_throughput_is_by_the_second(painted: Painted) -> None:
    """Throughput is per second, whatever the width of a step."""
    axes = painted(history_of(*(request(at / 2) for at in range(601))), "Throughput")
    assert axes is not None
    found = lines_of(axes)
    assert found["requests"][1][0] == 2.0
    assert found["texts"][1][0] == 4.0
    assert axes.get_ylim()[0] == 0
    assert painted(history_of(event(0.0, "x")), "Throughput") is None


def test_batch_sizes_are_shares(painted: Painted) -> None:
    """Batch sizes are shown in percent of all batches."""
    batches = [event(0.0, "batch.completed", rows=rows) for rows in (1, 1, 1, 8)]
    axes = painted(history_of(*batches), "Batch sizes")
    assert axes is not None
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
    assert bars == pytest.approx({1: 75, 8: 25})
    assert axes.get_xlabel() == "texts in a batch"
    assert axes.yaxis.get_major_formatter()(5, 0) == "5 %"
    assert painted(history_of(), "Batch sizes") is None


def test_memory_holds_until_it_is_told_again(painted: Painted) -> None:
    """Memory is each step's maximum in MB, and the last value is held to the end."""
    told = [(0.2, 10), (0.7, 30), (2.5, 20)]
    records = [event(at, "server.memory", pss_bytes=size * MB) for at, size in told]
    axes = painted(history_of(*records, request(4.5)), "Memory")
    assert axes is not None
    dots, steps = axes.lines[:2]
    assert [x * DAY for x in dots.get_xdata()] == pytest.approx([0.5, 2.5])
    assert list(dots.get_ydata()) == [30, 20]
    assert [x * DAY for x in steps.get_xdata()] == pytest.approx([0.5, 2.5, 4.5])
    assert list(steps.get_ydata()) == [30, 20, 20]
    assert steps.get_drawstyle() == "steps-post"
    assert axes.get_ylim() == pytest.approx((0, 37.5))
    assert axes.yaxis.get_major_formatter()(5, 0) == "5 MB"
    assert painted(history_of(request(0.0)), "Memory") is None


def test_errors_stand_on_one_another(painted: Painted) -> None:
    """Errors are stacked by kind, the most frequent at the bottom, and beyond five as other."""
    kinds = {"a": 7, "b": 6, "c": 5, "d": 4, "e": 3, "f": 2, "g": 1}
    failed = [
        event(at + 0.5, "request.failed", code=kind)
        for kind, times in reversed(kinds.items())
        for at in (0, 2)
        for _ in range(times)
    ]
    axes = painted(history_of(*failed), "Errors")
    assert axes is not None
    bars = {group.get_label(): list(group) for group in axes.containers}
    assert list(bars) == ["a", "b", "c", "d", "e", "other"]
    assert [[bar.get_height() for bar in group] for group in bars.values()] == [
        [7, 0, 7], [6, 0, 6], [5, 0, 5], [4, 0, 4], [3, 0, 3], [3, 0, 3],
    ]  # fmt: skip
    assert [group[0].get_y() for group in bars.values()] == [0, 7, 13, 18, 22, 25]
    middles = [(bar.get_x() + bar.get_width() / 2) * DAY for bar in bars["a"]]
    assert middles == pytest.approx([0.5, 1.5, 2.5])
    assert bars["a"][0].get_width() * DAY == pytest.approx(0.9)
    assert axes.get_ylim() == pytest.approx((0, 35))
    few = [event(0.5, "request.failed", code=kind) for kind in "abcde"]
    axes = painted(history_of(*few), "Errors")
    assert axes is not None
    assert [group.get_label() for group in axes.containers] == list("abcde")
    assert painted(history_of(request(0.0)), "Errors") is None


def test_starts_are_marked_in_every_plot_of_a_time(painted: Painted) -> None:
    """Every plot over time marks the starts, ends its legend with them, and has the same range."""
    records = [
        event(1.0, "server.listening"), event(3.0, "server.listening"),
        request(0.5, queue_ms=1.0), request(5.5, queue_ms=1.0),
        event(2.0, "request.failed", code="x"), event(2.0, "server.memory", pss_bytes=MB),
    ]  # fmt: skip
    for title in ("Latency", "Time in the queue", "Throughput", "Memory", "Errors"):
        axes = painted(history_of(*records), title)
        assert axes is not None
        marks = [line for line in axes.lines if to_hex(line.get_color()) == INK]
        assert [line.get_xdata()[0] * DAY for line in marks] == pytest.approx([1, 3]), title
        legend = axes.get_legend()
        assert legend is not None
        names = [entry.get_text() for entry in legend.get_texts()]
        assert names[-1] == "start"
        assert names.count("start") == 1
        low, high = axes.get_xlim()
        assert (low * DAY, high * DAY) == pytest.approx((-0.5, 6.5)), title


def test_a_plot_takes_the_colours_of_its_page() -> None:
    """A plot uses the page's CSS variables, and has unique ids and an accessible title."""

    def paint(axes: Axes) -> bool:
        axes.plot([0, 1], [0, 1], label="<&>")
        axes.plot([0, 1], [1, 0])
        axes.legend()
        return True

    plot = draw("plot-7", Drawing("A <title>", "What & why", "Nothing.", paint))
    assert (plot.title, plot.about) == ("A <title>", "What & why")
    assert plot.svg is not None
    for part in (
        "var(--ink)", "var(--grid)", "var(--series-1)", "var(--series-2)",
        '<title id="plot-7-title">A &lt;title&gt;</title>',
        '<desc id="plot-7-about">What &amp; why</desc>',
        'aria-labelledby="plot-7-title" aria-describedby="plot-7-about"',
        "&lt;&amp;&gt;",
    ):  # fmt: skip
        assert part in plot.svg, part
    ids = re.findall(r'\bid="([^"]*)"', plot.svg)
    assert all(name.startswith("plot-7-") for name in ids)
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', plot.svg))
    assert used
    assert used <= set(ids)
    for absent in (*SERIES, INK, "<style", "<metadata", "font-family"):
        assert absent not in plot.svg, absent
    assert draw("plot-7", Drawing("A <title>", "What & why", "Nothing.", paint)) == plot
    wide = draw("p", Drawing("t", "a", "n", paint, (8.0, 1.0)))
    assert wide.svg is not None
    assert re.search(r'viewBox="0 0 576 72"', wide.svg)


def test_a_plot_of_nothing_says_so() -> None:
    """A plot without data is replaced by a text that says so."""
    plot = draw("p", Drawing("t", "a", "Nothing happened.", lambda _: False))
    assert (plot.title, plot.about, plot.svg) == ("t", "Nothing happened.", None)
