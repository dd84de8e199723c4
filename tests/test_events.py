import ast
import io
import json
from datetime import datetime
from pathlib import Path

import pytest
import structlog

import sidecar
from sidecar import events

LEVELS = {"debug", "info", "warning", "error", "critical"}


def _calls():
    """Every call of the log in the daemon's code, as (place, name, fields)."""
    for path in sorted(Path(sidecar.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_log(node.func):
                place = f"{path.name}:{node.lineno}"
                # Fields that are passed as a whole map (`**fields`) have no name here.
                yield place, node.args[0].value, {k.arg for k in node.keywords} - {None}


def _is_log(function):
    """`log.info(...)`, and `(log.error if ... else log.info)(...)`."""
    if isinstance(function, ast.IfExp):
        return _is_log(function.body)
    return (
        isinstance(function, ast.Attribute)
        and function.attr in LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id == "log"
    )


CALLS = list(_calls())


@pytest.mark.parametrize(("place", "name", "fields"), CALLS, ids=[call[0] for call in CALLS])
def test_an_event_has_a_catalogued_name_and_its_fields(place, name, fields):
    """No others, so that whoever reads the catalogue knows them all."""
    assert fields <= set(events.CATALOGUE[name].fields)


@pytest.mark.parametrize("name", events.CATALOGUE)
def test_a_catalogued_event_is_emitted(name):
    """The catalogue promises nothing that does not come."""
    assert name in {call[1] for call in CALLS}


@pytest.fixture
def lines():
    """The stream that events go to, while structlog is configured for the test."""
    stream = io.BytesIO()
    before = structlog.get_config()
    yield stream
    structlog.configure(**before)


def test_an_event_is_one_line_of_json(lines):
    """Time, level and name first, then the fields."""
    events.configure("info", lines)
    structlog.get_logger().info("peer.failed", peer_pid=3, traceback="a\nb")
    (line,) = lines.getvalue().splitlines()
    record = json.loads(line)
    assert list(record) == ["ts", "level", "event", "peer_pid", "traceback"]
    assert (record["level"], record["event"], record["traceback"]) == (
        "info", "peer.failed", "a\nb",
    )  # fmt: skip
    assert datetime.fromisoformat(record["ts"]).utcoffset().total_seconds() == 0


def test_events_below_the_level_are_left_out(lines):
    """debug is not info."""
    events.configure("info", lines)
    structlog.get_logger().debug("peer.connected")
    assert lines.getvalue() == b""


def test_a_reader_that_has_gone_is_no_reason_to_fail(lines):
    """The request that was logged goes on."""
    events.configure("info", lines)
    lines.close()
    structlog.get_logger().info("peer.connected")


def test_a_trace_shows_the_cause():
    """What the model raised, below what the request was told."""
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert "KeyError: 'inner'" in events.trace(error)
