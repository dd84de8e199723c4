import ast
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import structlog

import sidecar
from sidecar import events
from sidecar.cli import main
from sidecar.events.writer import Lines

LEVELS = {"debug", "info", "warning", "error", "critical"}


def _calls():
    """Yield every logging call in the daemon's code, as (place, name, fields, levels)."""
    for path in sorted(Path(sidecar.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_log(node.func):
                place = f"{path.name}:{node.lineno}"
                # Fields passed as `**fields` have no name in the syntax tree.
                fields = {k.arg for k in node.keywords} - {None}
                yield place, node.args[0].value, fields, _levels(node.func)


def _is_log(function):
    """Match `log.info(...)` and `(log.error if ... else log.info)(...)`."""
    if isinstance(function, ast.IfExp):
        return _is_log(function.body)
    return (
        isinstance(function, ast.Attribute)
        and function.attr in LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id == "log"
    )


def _levels(function):
    if isinstance(function, ast.IfExp):
        return _levels(function.body) | _levels(function.orelse)
    return {function.attr}


@pytest.fixture(scope="module")
def calls():
    return list(_calls())


def test_an_event_has_a_catalogued_name_level_and_fields(calls):
    """Every logging call uses a name, level and fields from the catalogue."""
    for place, name, fields, levels in calls:
        assert fields <= set(events.CATALOGUE[name].fields), place
        assert levels == set(events.CATALOGUE[name].levels), place


def test_a_catalogued_event_is_emitted(calls):
    """Every event in the catalogue is logged somewhere."""
    assert {name for _, name, *_ in calls} == set(events.CATALOGUE)


UNITS = {"seconds": ", s", "ms": ", ms", "bytes": ", bytes"}


def test_a_field_s_name_tells_its_unit():
    """A field's description ends with the unit that its name implies."""
    for name, event in events.CATALOGUE.items():
        for field, meaning in event.fields.items():
            unit = UNITS.get(field.rpartition("_")[2])
            assert unit is None or meaning.endswith(unit), (name, field)


def test_the_catalogue_is_documented_as_it_is(capsys):
    """docs/events.md is the output of `sidecar events`; run it to update the page."""
    assert main(["events"]) == 0
    page = Path(__file__).parents[1] / "docs" / "events.md"
    assert page.read_text() == capsys.readouterr().out


@pytest.fixture
def logged():
    """A function that calls `write` with a logger and returns the lines logged."""
    before = structlog.get_config()

    def lines(write):
        reading, writing = os.pipe()
        events.configure(Lines(writing))
        write(structlog.get_logger())
        events.flush()
        os.close(writing)
        with os.fdopen(reading, "rb") as reader:
            return reader.read().splitlines()

    yield lines
    structlog.configure(**before)


def test_an_event_is_one_line_of_json(logged):
    """An event is a line of JSON with time, level and name, then the fields that have a value."""
    fields = {"peer_pid": 3, "peer_uid": None, "traceback": "a\nb"}
    (line,) = logged(lambda log: log.info("peer.failed", **fields))
    record = json.loads(line)
    assert list(record) == ["ts", "level", "event", "peer_pid", "traceback"]
    assert (record["level"], record["event"], record["traceback"]) == (
        "info", "peer.failed", "a\nb",
    )  # fmt: skip
    assert datetime.fromisoformat(record["ts"]).utcoffset().total_seconds() == 0


def test_events_below_the_level_are_left_out(logged):
    """Events below the configured level are not written."""
    assert logged(lambda log: log.debug("peer.connected")) == []


def test_what_is_written_can_be_changed_while_it_runs(logged):
    """`select` takes effect at once, also for loggers already in use."""

    def write(log):
        log.debug("peer.connected", peer_pid=1)
        events.select(events.Selection("debug"))
        log.debug("peer.connected", peer_pid=2)
        events.select(events.Selection("warning"))
        log.info("peer.connected", peer_pid=3)

    assert [json.loads(line)["peer_pid"] for line in logged(write)] == [2]


LAST_WORDS = """
from sidecar import events
from sidecar.cli import main
from sidecar.events.writer import Lines
events.configure()
events.log.info("server.stopped", exit_code=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "events.flush(); import os; os._exit(0)"])
def test_what_was_said_is_written_before_the_process_ends(end):
    """Events are flushed at a normal exit, and by `flush` before `os._exit`."""
    command = [sys.executable, "-c", LAST_WORDS + end]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["event"] == "server.stopped"


def test_a_trace_shows_the_cause():
    """A traceback includes the cause of the exception."""
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert "KeyError: 'inner'" in events.trace(error)


def test_what_was_lost_is_an_event(logged):
    """Lost events are reported by an event with their count."""
    records = [json.loads(line) for line in logged(lambda _: events._log_lost(3))]
    assert [(each["level"], each["event"], each["count"]) for each in records] == [
        ("warning", "events.lost", 3)
    ]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_each_level_is_written_as_what_it_is(logged, level):
    """Every event has its level, and a timestamp that always shows microseconds."""

    def write(log):
        events.select(events.Selection("debug"))
        getattr(log, level)("peer.connected", peer_pid=0)

    (line,) = logged(write)
    record = json.loads(line)
    assert (record["level"], record["peer_pid"]) == (level, 0)
    assert len(record["ts"]) == len("2026-11-22T10:00:00.000000+00:00")


def test_who_ends_the_process_waits_a_second_at_most(logged, monkeypatch):
    """`flush` waits for at most a second, as the reader may never come back."""
    waited = []

    def write(log):
        log.info("peer.connected")
        outlet = structlog.get_config()["logger_factory"]()
        monkeypatch.setattr(outlet._writer, "flush", waited.append)
        events.flush()
        monkeypatch.undo()

    assert len(logged(write)) == 1
    assert waited == [1.0]


def test_without_events_there_is_nothing_to_wait_for():
    """`flush` does nothing if events are not configured."""
    before = structlog.get_config()
    structlog.reset_defaults()
    try:
        events.flush()
    finally:
        structlog.configure(**before)
