"""`sidecar report`: the page that it writes, and its rendering in a browser."""

from pathlib import Path
from typing import Any

import pytest

from .command import sidecar, sidecar_process
from .pages import assert_is_seen, assert_stands_alone, opened

PLOTS = ("Latency", "Time in the queue", "Throughput", "Batch sizes", "Memory", "Errors")
TABLES = ("Quantization", "What failed, and why", "Slowest batches", "Busiest clients")


@pytest.fixture(scope="module")
def page(event_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on events that a real daemon wrote."""
    pytest.importorskip("matplotlib")
    output = tmp_path_factory.mktemp("report") / "report.html"
    done = sidecar("report", "--file", str(event_log), "-o", str(output))
    assert (done.returncode, done.stderr) == (0, "")
    events = len(event_log.read_text().splitlines())
    assert done.stdout == f"{output}: {events} events\n"
    return output


@pytest.mark.slow
def test_the_page_stands_alone(page: Path) -> None:
    """The page has no script and no external reference, and its ids are unique and defined."""
    assert_stands_alone(page.read_text())


def test_the_page_shows_plots_and_tables(page: Path) -> None:
    """The page has every plot and table; each plot has a title and a text description."""
    text = page.read_text()
    assert text.count('<svg viewBox="') == len(PLOTS) == text.count("<desc ")
    for title in (*PLOTS, *TABLES):
        assert f">{title}</h2>" in text
    for part in ("90 MB → 23 MB", "deadline_exceeded", "it would take # s", "cosine 0.99"):
        assert part in text


def test_what_a_peer_wrote_is_text(tmp_path: Path) -> None:
    """Markup in events is escaped, in tables and in plots."""
    pytest.importorskip("matplotlib")
    log = tmp_path / "x.log"
    log.write_text(
        '{"ts":"2026-11-22T10:00:00+00:00","event":"request.failed","level":"info",'
        '"code":"<b>$x^2$ _a</b>","reason":"<script>alert(1)</script>"}\n'
    )
    done = sidecar("report", "--file", str(log), "-o", str(tmp_path / "r.html"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;b&gt;$x^2$ _a&lt;/b&gt;" in text.split("<svg")[-1].split("</svg>")[0]


def test_a_time_without_events_is_said(event_log: Path, tmp_path: Path) -> None:
    """A period without events is reported, on stdout and on the page."""
    pytest.importorskip("matplotlib")
    output = tmp_path / "r.html"
    flags = ["--file", str(event_log), "--until", "2000-01-01", "-o", str(output)]
    assert sidecar("report", *flags).stdout == f"{output}: 0 events\n"
    assert f"No event was found in {event_log.name}" in output.read_text()


def test_what_is_missing_is_said_in_its_place(event_log: Path, tmp_path: Path) -> None:
    """A missing plot or table is replaced by a sentence that says why."""
    pytest.importorskip("matplotlib")
    output = tmp_path / "r.html"
    flags = ["--event", "model.*", "-o", str(output)]
    assert sidecar("report", "--file", str(event_log), *flags).returncode == 0
    text = output.read_text()
    assert text.count("<svg") == 1
    for part in ("No request was answered in this period.", "Nothing failed.", "No batch was comp"):
        assert part in text


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_one_line(event_log: Path, tmp_path: Path) -> None:
    """A page that cannot be written is reported in one line, with exit code 78."""
    pytest.importorskip("matplotlib")
    output = tmp_path / "none" / "r.html"
    done = sidecar("report", "--file", str(event_log), "-o", str(output))
    assert done.returncode == 78
    assert done.stderr == f"sidecar: {output} cannot be written: No such file or directory\n"


def test_without_the_extra_it_says_what_to_install(event_log: Path, tmp_path: Path) -> None:
    """Without the extra `plots`, the command to install it is printed in one line."""
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError(name='matplotlib')")
    path = f"{tmp_path}:{Path.cwd()}"
    done = sidecar_process("report", "--file", str(event_log), PYTHONPATH=path)
    assert done.returncode == 78
    assert (
        done.stderr
        == "sidecar: a report needs matplotlib: pip install 'embedding-sidecar[plots]'\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_looks_right_in_a_browser(
    page: Path, browser: Any, width: int, scheme: str
) -> None:
    """A browser fetches nothing, logs no errors, and shows every plot without scrolling."""
    with opened(page, browser, width, scheme) as view:
        assert_is_seen(view, width, scheme, PLOTS)
        heights = [plot.bounding_box()["height"] for plot in view.locator("figure svg").all()]
        assert min(heights) > 150
