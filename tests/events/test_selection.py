"""Filtering and sampling of events."""

from contextlib import suppress

import pytest
import structlog

from sidecar.events import Selection

TRACE = "4bf92f3577b34da6a3" + "{:014x}"


def kept(selection: Selection, event: str = "request.completed", **fields: object) -> dict | None:
    """Return the event as written, or None if it is dropped."""
    try:
        return dict(selection(None, "info", {"event": event, **fields}))
    except structlog.DropEvent:
        return None


def test_by_default_everything_is_written_as_it_is() -> None:
    """By default every event is kept, without a `sample` field."""
    assert "sample" not in kept(Selection(), total_ms=1, compute_ms=1)


def test_a_share_is_written_and_says_which() -> None:
    """Sampling keeps the configured share of events, and records it in `sample`."""
    events = [kept(Selection(share=0.25), total_ms=1, compute_ms=1) for _ in range(4_000)]
    written = [event for event in events if event]
    assert {event["sample"] for event in written} == {0.25}
    assert 800 < len(written) < 1_200


@pytest.mark.parametrize("event", ["request.failed", "peer.rejected", "server.listening"])
def test_other_events_are_always_written(event: str) -> None:
    """Events other than completed requests and batches are never sampled."""
    assert kept(Selection(share=0.0), event)


def test_what_is_slow_is_always_written() -> None:
    """Slow requests and batches are always kept, with `sample` 1."""
    selection = Selection(share=0.0, slow_ms=100)
    assert kept(selection, total_ms=100, compute_ms=1)["sample"] == 1
    assert kept(selection, "batch.completed", compute_ms=100)["sample"] == 1
    assert kept(selection, total_ms=99.9, compute_ms=1) is None


def test_a_trace_is_written_whole_or_not_at_all() -> None:
    """The trace id decides whether to keep an event, so that a trace is kept or dropped whole."""
    low, high = TRACE.format(2**54), TRACE.format(2**55)
    for _ in range(20):
        assert kept(Selection(share=0.3), trace_id=low, total_ms=1, compute_ms=1)
        assert not kept(Selection(share=0.3), trace_id=high, total_ms=1, compute_ms=1)


@pytest.mark.parametrize("least", ["debug", "info", "warning", "error"])
def test_a_level_lets_through_what_is_as_bad_or_worse(least: str) -> None:
    """A level lets through events of that level and above, and drops those below."""
    levels = ("debug", "info", "warning", "error", "critical")
    written = []
    for level in levels:
        with suppress(structlog.DropEvent):
            Selection(least)(None, level, {"event": "x"})
            written.append(level)
    assert written == list(levels[levels.index(least) :])


def test_only_what_there_are_many_of_is_sampled() -> None:
    """Only completed requests and batches are sampled; other events get no `sample` field."""
    selection = Selection(share=0.0)
    for name in ("request.failed", "server.stopped", "peer.rejected"):
        assert kept(selection, name) == {"event": name}
    for name in ("request.completed", "batch.completed"):
        assert kept(selection, name, compute_ms=5.0) is None


def test_slow_is_told_by_the_whole_time_where_it_is_known() -> None:
    """Slowness is judged by `total_ms`, or `compute_ms` without it, and the limit is inclusive."""
    selection = Selection(share=0.0, slow_ms=100.0)
    assert kept(selection, total_ms=99.9, compute_ms=500.0) is None
    assert kept(selection, compute_ms=99.9) is None
    assert kept(selection, compute_ms=100.0) == {
        "event": "request.completed",
        "compute_ms": 100.0,
        "sample": 1.0,
    }


def test_a_trace_draws_its_own_lot() -> None:
    """A trace is kept if the number in its last 14 digits is below the share."""
    selection = Selection(share=0.5)
    for last, below in (("0" * 14, True), ("7f" + "0" * 12, True), ("8" + "0" * 13, False)):
        for first in ("0" * 18, "f" * 18):
            found = kept(selection, "batch.completed", compute_ms=1.0, trace_id=first + last)
            assert (found is not None) is below, last
            assert found is None or found["sample"] == 0.5
