"""Which lines are written, where not all of them are."""

import pytest
import structlog

from sidecar.events import Selection

TRACE = "4bf92f3577b34da6a3" + "{:014x}"


def kept(selection: Selection, event: str = "request.completed", **fields: object) -> dict | None:
    """Return the event as it is written, or None where it is not."""
    try:
        return dict(selection(None, "info", {"event": event, **fields}))
    except structlog.DropEvent:
        return None


def test_by_default_everything_is_written_as_it_is() -> None:
    """Nothing is weighted."""
    assert "sample" not in kept(Selection(), total_ms=1, compute_ms=1)


def test_a_share_is_written_and_says_which() -> None:
    """A sum over what is written, each by 1 / sample, is near the sum over all."""
    events = [kept(Selection(share=0.25), total_ms=1, compute_ms=1) for _ in range(4_000)]
    written = [event for event in events if event]
    assert {event["sample"] for event in written} == {0.25}
    assert 800 < len(written) < 1_200


@pytest.mark.parametrize("event", ["request.failed", "peer.rejected", "server.listening"])
def test_other_events_are_always_written(event: str) -> None:
    """What fails above all."""
    assert kept(Selection(share=0.0), event)


def test_what_is_slow_is_always_written() -> None:
    """And stands for itself alone; a batch is as slow as its computing."""
    selection = Selection(share=0.0, slow_ms=100)
    assert kept(selection, total_ms=100, compute_ms=1)["sample"] == 1
    assert kept(selection, "batch.completed", compute_ms=100)["sample"] == 1
    assert kept(selection, total_ms=99.9, compute_ms=1) is None


def test_a_trace_is_written_whole_or_not_at_all() -> None:
    """The id decides, as its last 56 bits are random."""
    low, high = TRACE.format(2**54), TRACE.format(2**55)
    for _ in range(20):
        assert kept(Selection(share=0.3), trace_id=low, total_ms=1, compute_ms=1)
        assert not kept(Selection(share=0.3), trace_id=high, total_ms=1, compute_ms=1)
