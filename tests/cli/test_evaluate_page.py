"""The page of `sidecar evaluate --html`: its content, and its rendering in a browser."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from sidecar.models.manifest import Quality
from sidecar.operate.evaluate.evaluation import (
    Difference,
    Evaluation,
    Figure,
    Judged,
    Outcome,
    Served,
)
from sidecar.operate.evaluate.page import render

from .pages import assert_is_seen, assert_stands_alone, opened

PLANS = {
    "none": Served("none", None, "MatMul", 90_261_528, ()),
    "int8": Served("int8", 7, "MatMulInteger", 22_885_450, ()),
    "int4": Served("int4", None, "MatMulNBits", 19_885_450, ("layer.0.output", "layer.5.output")),
}
NOISE = Difference(0.0019, -0.0040, 0.0075, 0.0042)
WORSE = Difference(-0.0135, -0.0220, -0.0051, -0.0297)
BETTER = Difference(0.0049, 0.0012, 0.0086, 0.0057)
NOTHING = Difference(0.0, 0.0, 0.0, None)
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def judged(name: str, values: Mapping[str, float], **found: tuple[Difference, ...]) -> Judged:
    """Return a data set with FP32's `values` by metric, and each plan's differences from them."""
    close = Quality(mean=0.9992, p1=0.9987, min=0.9979, texts=1623)
    outcomes = [Outcome("none", tuple(Figure(m, v, None) for m, v in values.items()), None)]
    for plan, differences in found.items():
        pairs = zip(values.items(), differences, strict=True)
        figures = tuple(Figure(metric, value + d.value, d) for (metric, value), d in pairs)
        outcomes.append(Outcome(plan, figures, close))
    return Judged(name, "225 queries, 1,398 documents", "embed", tuple(outcomes))


CRANFIELD = judged(
    "cranfield", {"Recall@10": 0.4545, "NDCG@10": 0.5090}, int8=(NOISE, NOISE), int4=(WORSE, NOISE)
)
STSB = judged("stsb", {"Spearman": 0.8672}, int8=(NOTHING,), int4=(BETTER,))


SETS = ("cranfield", "stsb")


def page_of(*sets: Judged, model: str = "all-MiniLM-L6-v2") -> str:
    plans = {outcome.plan: PLANS[outcome.plan] for outcome in sets[0].outcomes}
    source = Path("/srv/models/all-MiniLM-L6-v2")
    return render(Evaluation(model, source, "EPYC", plans, sets), NOW)


@pytest.fixture(scope="module")
def text() -> str:
    """A page with two data sets and two plans besides FP32."""
    return page_of(CRANFIELD, STSB)


def test_the_page_stands_alone(text: str) -> None:
    """The page has no script and no external reference, and its ids are unique and defined."""
    assert_stands_alone(text)


def test_the_page_says_what_was_judged(text: str) -> None:
    """The page names the model, its source, the processor and how each plan is served."""
    for part in (
        "Accuracy of all-MiniLM-L6-v2", "int8 and int4 against FP32, judged on cranfield and stsb",
        "/srv/models/all-MiniLM-L6-v2", "EPYC", "2026-11-22", "22.9\N{NO-BREAK SPACE}MB",
        "25.4\N{NO-BREAK SPACE}%", "int8, 7-bit weights", "layer.0.output, layer.5.output",
        "MatMulNBits", "0.9979",
    ):  # fmt: skip
        assert part in text


def test_figures_stand_beside_those_of_fp32(text: str) -> None:
    """A row holds FP32's figure, the plan's, their difference, its interval and the verdict."""
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", text)]
    plain = [[re.sub("<[^>]*>|\N{NO-BREAK SPACE}", " ", c).strip() for c in row] for row in rows]
    minus = "\N{MINUS SIGN}"
    assert [
        "Recall@10", "0.4545", "int4", "0.4410", f"{minus}0.0135", f"{minus}2.97 %",
        f"{minus}0.0220 to {minus}0.0051", "worse",
    ] in plain  # fmt: skip
    assert [
        "Spearman", "0.8672", "int8", "0.8672", "0.0000", "", "0.0000 to 0.0000", "within noise",
    ] in plain  # fmt: skip


def test_verdicts_are_counted_for_each_plan(text: str) -> None:
    """The cards at the top count each plan's figures that are within noise, worse and better."""
    cards = re.findall(r'<dt>([^<]*)</dt><dd class="value">([^<]*)</dd><dd[^>]*>([^<]*)<', text)
    assert ("int8 within noise", "3 of 3", "figures") in cards
    assert ("int4 within noise", "1 of 3", "figures, 1 worse, 1 better") in cards


def test_dots_are_hollow_within_noise(text: str) -> None:
    """Dots within noise have the colour of the background, others that of their plan."""
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert [plot.count("fill: var(--card)") > 0 for plot in plots] == [True, True]
    hollow, filled = (
        page_of(judged("d", {"MAP": 0.5}, int8=(NOISE,))),
        page_of(judged("d", {"MAP": 0.5}, int8=(BETTER,))),
    )
    assert "fill: var(--card)" in hollow
    assert "fill: var(--card)" not in filled


def test_fp32_alone_has_figures_and_no_plot() -> None:
    """With FP32 alone, the page has figures but no plot, and says that nothing was compared."""
    text = page_of(judged("d", {"MAP": 0.5}))
    assert_stands_alone(text)
    assert "<svg" not in text
    assert "0.5000" in text
    assert "Nothing was compared with FP32." in text


def test_what_names_say_is_text() -> None:
    """Markup in the name of a model or folder is escaped."""
    text = page_of(judged("<b>d", {"MAP": 0.5}, int8=(NOISE,)), model="<script>")
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;b&gt;d" in text


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 720, 1280])
def test_the_page_looks_right_in_a_browser(
    text: str, tmp_path: Path, browser: Any, width: int, scheme: str
) -> None:
    """A browser fetches nothing, logs no errors, and shows every table without scrolling."""
    page = tmp_path / "page.html"
    page.write_text(text)
    with opened(page, browser, width, scheme) as view:
        assert_is_seen(view, width, scheme, [f"{name}: differences to FP32" for name in SETS])
        for table in view.get_by_role("table").all():
            box, card = table.bounding_box(), table.locator("..").bounding_box()
            assert box["x"] + box["width"] < card["x"] + card["width"]
        assert view.get_by_role("table", name="cranfield").get_by_role("row").count() == 5
