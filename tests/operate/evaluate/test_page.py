"""An evaluation's page: its figures and tables, and the positions in its plots."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas

from sidecar.models.manifest import Quality
from sidecar.operate.evaluate.evaluation import (
    Difference,
    Evaluation,
    Figure,
    Judged,
    Outcome,
    Served,
)
from sidecar.operate.evaluate.forest import forest
from sidecar.operate.evaluate.page import render
from sidecar.operate.page.drawing import PAPER, SERIES

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLANS = {
    "none": Served("none", None, "MatMul", 90_000_000, ()),
    "int8": Served("int8", 7, "MatMulInteger", 22_500_000, ()),
    "int4": Served("int4", None, "MatMulNBits", 18_000_000, ("a", "b")),
}
NOISE = Difference(0.002, -0.004, 0.008, 0.01)
WORSE = Difference(-0.0135, -0.022, -0.005, -0.03)
BETTER = Difference(0.005, 0.001, 0.009, 0.02)


def outcome(plan: str, *found: Difference) -> Outcome:
    figures = tuple(
        Figure(name, value + each.value, each)
        for (name, value), each in zip((("MAP", 0.4), ("P@5", 0.2)), found, strict=True)
    )
    return Outcome(plan, figures, Quality(mean=0.9992, p1=0.9987, min=0.9979, texts=1623))


EXACT = Outcome("none", (Figure("MAP", 0.4, None), Figure("P@5", 0.2, None)), None)
JUDGED = Judged(
    "cran",
    "2 queries",
    "rerank",
    (EXACT, outcome("int8", NOISE, BETTER), outcome("int4", WORSE, NOISE)),
)
ALONE = Judged("alone", "3 queries", "embed", (EXACT,))


def page_of(*judged: Judged, **plans: Served) -> str:
    text = render(Evaluation("m", Path("/m"), "CPU", {**PLANS, **plans}, judged), NOW)
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def rows_of(page: str, title: str) -> list[list[str]]:
    (section,) = re.findall(rf"<h2 id=\"[a-z]+-\d\">{title}</h2>.*?</section>", page, re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", section, re.DOTALL)[1:]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [[re.sub("<[^>]*>", "", cell) for cell in row] for row in cells]


def test_each_plan_stands_beside_fp32() -> None:
    """Each metric and plan has a row with both figures, the difference, and the verdict."""
    assert rows_of(page_of(JUDGED), "cran") == [
        [
            "MAP",
            "0.4000",
            "int8",
            "0.4020",
            "+0.0020",
            "+1.00 %",
            "-0.0040 to +0.0080",
            "within noise",
        ],
        ["MAP", "0.4000", "int4", "0.3865", "-0.0135", "-3.00 %", "-0.0220 to -0.0050", "worse"],
        ["P@5", "0.2000", "int8", "0.2050", "+0.0050", "+2.00 %", "+0.0010 to +0.0090", "better"],
        [
            "P@5",
            "0.2000",
            "int4",
            "0.2020",
            "+0.0020",
            "+1.00 %",
            "-0.0040 to +0.0080",
            "within noise",
        ],
    ]
    for mark, verdict in (("noise", "within noise"), ("better", "better"), ("worse", "worse")):
        assert f'<span class="mark {mark}">{verdict}</span>' in page_of(JUDGED)


def test_fp32_alone_has_its_figures() -> None:
    """An evaluation of FP32 only shows its figures, without a plot or a comparison."""
    page = render(Evaluation("m", Path("/m"), "CPU", {"none": PLANS["none"]}, [ALONE]), NOW)
    assert rows_of(page, "alone") == [["MAP", "0.4000"], ["P@5", "0.2000"]]
    assert "<svg" not in page
    assert "Nothing was compared with FP32." in page
    assert "<p>FP32, judged on alone</p>" in page


def test_what_each_plan_came_out_in() -> None:
    """Each plan is shown with its size, the layers kept in FP32, its kernel and its closeness."""
    page = page_of(JUDGED)
    assert rows_of(page, "What each plan is served in") == [
        ["none", "FP32", "90.0 MB", "100.0 %", "all", "MatMul"],
        ["int8", "int8, 7-bit weights", "22.5 MB", "25.0 %", "none", "MatMulInteger"],
        ["int4", "int4", "18.0 MB", "20.0 %", "a, b", "MatMulNBits"],
    ]
    assert rows_of(page, "Closeness to FP32") == [
        ["cran", plan, "1 minus the distance between a pair&#39;s two scores", "0.9992", "0.9987",
         "0.9979", "1,623"]
        for plan in ("int8", "int4")
    ]  # fmt: skip


def test_the_figures_at_the_head() -> None:
    """The cards show each plan's size, and its figures within noise over all data."""
    page = page_of(JUDGED, JUDGED)
    found = re.findall(
        r'<dt>(.*?)</dt><dd class="value">(.*?)</dd><dd class="about">(.*?)</dd>', page
    )
    assert [tuple(each.replace("&#39;", "'") for each in row) for row in found] == [
        ("FP32", "90.0 MB", "of weights"),
        ("int8", "22.5 MB", "25.0 % of FP32's weights"),
        ("int8 within noise", "2 of 4", "figures, 2 better"),
        ("int4", "18.0 MB", "20.0 % of FP32's weights"),
        ("int4 within noise", "2 of 4", "figures, 2 worse"),
    ]
    assert "int8 and int4 against FP32, judged on cran and cran" in page
    fell = Served("none", None, "MatMul", 90_000_000, ())
    assert "fell back to FP32" in page_of(JUDGED, int4=fell)


def painted(judged: Judged) -> Axes | None:
    axes = Canvas().add_subplot()
    return axes if forest(judged).paint(axes) else None


def test_an_interval_is_drawn_for_each_plan_and_metric() -> None:
    """Each interval has its ends, a dot that is hollow within noise, and its plan's colour."""
    axes = painted(JUDGED)
    assert axes is not None
    intervals = [
        line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2
    ]
    assert [tuple(line.get_xdata()) for line in intervals] == [
        (-0.004, 0.008), (-0.022, -0.005), (0.001, 0.009), (-0.004, 0.008),
    ]  # fmt: skip
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [0.002, -0.0135, 0.005, 0.002]
    colors = [SERIES[0], SERIES[1], SERIES[0], SERIES[1]]
    assert [to_hex(line.get_color()) for line in dots] == colors
    assert [to_hex(line.get_color()) for line in intervals] == colors
    faces = [PAPER, SERIES[1], SERIES[0], PAPER]
    assert [to_hex(line.get_markerfacecolor()) for line in dots] == faces
    downs = [float(line.get_ydata()[0]) for line in dots]
    assert downs == sorted(set(downs))
    assert downs == [float(line.get_ydata()[0]) for line in intervals]
    bottom, top = axes.get_ylim()
    assert top < downs[0] < downs[-1] < bottom
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["MAP", "P@5"]
    middles = [(downs[0] + downs[1]) / 2, (downs[2] + downs[3]) / 2]
    assert list(axes.get_yticks()) == pytest.approx(middles)
    shares = [text.get_text() for text in axes.texts]
    assert shares == ["+1.00\N{NO-BREAK SPACE}%", "\N{MINUS SIGN}3.00\N{NO-BREAK SPACE}%",
                      "+2.00\N{NO-BREAK SPACE}%", "+1.00\N{NO-BREAK SPACE}%"]  # fmt: skip
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["int8", "int4"]


def test_zero_stands_in_the_middle() -> None:
    """The axis is symmetric around zero, and has a minimum width."""
    axes = painted(JUDGED)
    assert axes is not None
    low, high = axes.get_xlim()
    assert -low == high == pytest.approx(1.08 * 0.022)
    nothing = Difference(0.0, 0.0, 0.0, None)
    axes = painted(Judged("d", "", "embed", (EXACT, outcome("int8", nothing, nothing))))
    assert axes is not None
    low, high = axes.get_xlim()
    assert -low == high == pytest.approx(1.08e-3)
    assert axes.get_legend() is None  # of one plan
    label = axes.xaxis.get_major_formatter()
    assert [label(at, 0) for at in (0, 0.01, -0.01)] == ["0", "+0.01", "\N{MINUS SIGN}0.01"]


def test_a_plot_grows_with_what_it_shows() -> None:
    """A plot grows with its rows, and there is none without plans to compare."""
    one = Judged("d", "", "embed", (EXACT, outcome("int8", NOISE, NOISE)))
    (width, small), (other, large) = forest(one).size, forest(JUDGED).size
    assert (width, other) == (4.2, 4.2)
    assert large - small == pytest.approx(2 * 0.2)
    assert forest(JUDGED).title == "cran: differences to FP32"
    assert painted(ALONE) is None
