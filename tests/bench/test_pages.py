"""Results are rendered as Markdown, and the documentation is up to date with them."""

import re
from pathlib import Path, PurePath

import pytest

from bench import comparison, pages, refresh

from .results import chart, result

ROOT = Path(__file__).parents[2]
PLOTS = PurePath("measured")
RESULTS = {"start": result()}


def place(asked: str) -> str:
    return f"before\n<!-- measured: {asked} -->\nold\n<!-- /measured -->\nafter\n"


def filled(asked: str) -> str:
    return pages.fill(place(asked), RESULTS, PLOTS)


def test_a_page_has_all_of_a_result() -> None:
    """A page shows a result's command, date, host, tables, figures, plots and omissions."""
    whole = result(skipped={"a reranker": "there is none"})
    assert pages.page({"start": whole}, PLOTS).partition("\n- ")[2] == (
        "[start](#start): a model, 2 texts\n\n"
        "## start\n\n"
        "`python -m bench start --rounds 2` — a model, 2 texts\n\n"
        "2024-02-29, on a processor, 2 cores (avx2), load 0.2 at the end.\n\n"
        "**first**\n\n|  | ms |\n| --- | --- |\n| ours | 2 |\n\n"
        "**second**\n\n|  | MB |\n| --- | --- |\n| ours | 30 |\n\n"
        "|  |  |\n| --- | --- |\n| ratio | 2.25 |\n\n"
        "- left out: a reranker (there is none)\n\n"
        "![Longer, the more there is](measured/start-times.svg)\n"
    )


def test_results_follow_one_another_in_their_order() -> None:
    """Results keep their order on the page and in its table of contents."""
    page = pages.page({"start": result(), "fair": result()}, PLOTS)
    lines = [line for line in page.splitlines() if line.startswith(("- [", "## "))]
    assert [line[:9] for line in lines] == ["- [start]", "- [fair](", "## start", "## fair"]


def test_a_failure_is_told() -> None:
    """A page shows a result's failures."""
    assert "**Failed: requests lost**" in pages.page(
        {"faults": result(failed=["requests lost"])}, PLOTS
    )


def test_cells_stay_cells() -> None:
    """Bars, line breaks and angle brackets in a cell are escaped."""
    table = {"title": "t", "head": ["a|b", "x"], "rows": [["one\ntwo", "<1"]]}
    page = pages.page({"start": result(tables=[table])}, PLOTS)
    assert "| a\\|b | x |\n| --- | --- |\n| one two | &lt;1 |\n" in page


def test_a_table_titled_as_its_result_has_no_title_of_its_own() -> None:
    """A table with the title of its result does not repeat it."""
    table = {"title": "a model, 2 texts", "head": ["a"], "rows": []}
    assert "**a model" not in pages.page({"start": result(tables=[table])}, PLOTS)


def test_a_place_is_filled_with_the_tables() -> None:
    """Filling a marker replaces its content and nothing around it."""
    assert filled("start") == (
        "before\n<!-- measured: start -->\n\n"
        "`python -m bench start --rounds 2` — a model, 2 texts\n\n"
        "**first**\n\n|  | ms |\n| --- | --- |\n| ours | 2 |\n\n"
        "**second**\n\n|  | MB |\n| --- | --- |\n| ours | 30 |\n\n"
        "<!-- /measured -->\nafter\n"
    )


@pytest.mark.parametrize("asked", ["start", "start tables=2", "start host figures plots"])
def test_filling_twice_changes_nothing(asked: str) -> None:
    """Filling a filled page changes nothing."""
    once = filled(asked)
    assert pages.fill(once, RESULTS, PLOTS) == once


def test_a_place_asks_for_some_tables_figures_and_plots() -> None:
    """A marker selects tables in the order named, figures and plots."""
    assert "first" not in filled("start tables=2")
    page = filled("start tables=2,1 figures plots")
    order = [page.index(part) for part in ("second", "first", "| ratio |", "start-times.svg")]
    assert order == sorted(order)


def test_a_place_may_ask_for_the_host_and_no_tables() -> None:
    """A marker's `host` shows the date and the host, and `tables=none` leaves out all tables."""
    page = filled("start host tables=none")
    assert "2024-02-29, on a processor, 2 cores (avx2), load 0.2 at the end.\n" in page
    assert "|" not in page


def test_a_place_may_name_figures_and_plots() -> None:
    """A marker selects figures by number and plots by name."""
    charts = [{**chart(), "name": name} for name in ("times", "rates")]
    results = {"start": result(figures={"ratio": 2.25, "share": 0.5}, charts=charts)}
    page = pages.fill(place("start tables=none figures=2 plots=rates"), results, PLOTS)
    assert "| share | 0.5 |" in page
    assert "ratio" not in page
    assert "start-rates.svg" in page
    assert "start-times.svg" not in page


def test_a_text_without_places_stays_as_it_is() -> None:
    """A page without markers is unchanged, to the byte."""
    text = "| a | b |\n\n<!-- a comment -->\n"
    assert pages.fill(text, RESULTS, PLOTS) == text


@pytest.mark.parametrize(
    "asked",
    [
        "nonsense",
        "start tables=3",
        "start tables=0",
        "start fugures",
        "start figures=2",
        "start plots=rates",
    ],
)
def test_what_there_is_not_is_an_error_that_names_the_place(asked: str) -> None:
    """An unknown result, table, figure, plot or option is an error that quotes the marker."""
    with pytest.raises(pages.MarkerError, match=f"<!-- measured: {asked} -->"):
        filled(asked)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- measured: start -->\n",
        "<!-- measured: start -->\n" + place("start"),
        "<!-- /measured -->\n<!-- measured: start -->\n",
    ],
)
def test_a_place_that_does_not_end_is_an_error(text: str) -> None:
    """A marker without its end, or an end without its marker, is an error."""
    with pytest.raises(pages.MarkerError):
        pages.fill(text, RESULTS, PLOTS)


def test_the_documentation_is_what_the_results_become() -> None:
    """Rendering the kept results would change no page."""
    results = refresh.shown(refresh.read(ROOT / refresh.RESULTS))
    for path, plots in refresh.PAGES.items():
        text = (ROOT / path).read_text()
        assert text == pages.fill(text, results, plots), path


def test_every_place_is_on_a_page_that_is_filled() -> None:
    """Markers occur only on the pages that `refresh` fills."""
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    holding = {page.relative_to(ROOT) for page in texts if "<!-- measured:" in page.read_text()}
    assert holding == set(refresh.PAGES)


def test_every_result_is_shown() -> None:
    """Every kept result has a marker on some page."""
    texts = [(ROOT / path).read_text() for path in refresh.PAGES]
    places = {name for text in texts for name in re.findall(r"<!-- measured: (\S+)", text)}
    assert places == set(refresh.shown(refresh.read(ROOT / refresh.RESULTS)))


def test_the_readme_says_what_was_measured() -> None:
    """The figures quoted in the README's lead are those of the results."""
    results = refresh.read(ROOT / refresh.RESULTS)
    figures = {**results["serve"]["figures"], **results["many"]["figures"]}
    fp32 = figures["texts/s of 16 clients, times sentence-transformers FP32, batches of 16"]
    (best,) = (value for name, value in figures.items() if "times the best server" in name)
    memory = figures["8 processes, Sidecar of sentence-transformers FP32 in each, %"]
    ours = comparison.of(results)["tables"][0]["rows"][0]
    lead = (ROOT / "README.md").read_text().partition("## Try it")[0]
    for quoted in (f"{fp32:.1f} times", f"{best:.1f} times", f"{memory:.1f} %", ours[3]):
        assert quoted in lead


def test_every_plot_is_there_and_no_other() -> None:
    """The plots on disk are exactly those of the results."""
    folder = ROOT / refresh.RESULTS
    results = refresh.read(folder)
    files = {
        f"{pages.plot_name(name, each)}.svg" for name in results for each in results[name]["charts"]
    }
    assert {path.name for path in folder.glob("*") if path.suffix != ".json"} == files
