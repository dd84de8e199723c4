"""What is kept of a daemon's time, whatever its length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.operate.history import History
from sidecar.operate.records import Record
from sidecar.operate.timeline import Timeline, add

YEAR = 366 * 86_400


def request(at: float, **fields: object) -> Record:
    return Record(at, {"event": "request.completed", "total_ms": 5.0, "rows": 2, **fields})


def history_of(*records: Record) -> History:
    history = History()
    for record in records:
        history.add(record)
    return history


@given(st.lists(st.floats(0, 60 * YEAR), min_size=1, max_size=60))
def test_steps_are_few_and_lose_nothing(times: list[float]) -> None:
    """However long the time is, and in whatever order it is told."""
    timeline = Timeline()
    for at in times:
        add(timeline.at(at).answered, "requests", 1)
        timeline.at(at).total_ms.add(at)
    steps = list(timeline.steps())
    assert len(steps) <= 240
    assert sum(step.answered.get("requests", 0) for _, step in steps) == len(times)
    assert sum(step.total_ms.count for _, step in steps) == len(times)
    assert [middle for middle, _ in steps] == sorted(middle for middle, _ in steps)


@pytest.mark.parametrize(
    ("seconds", "width"), [(10, 1), (239, 1), (300, 5), (3_600, 60), (86_400, 900), (YEAR, 604_800)]
)
def test_steps_have_widths_that_people_know(seconds: int, width: int) -> None:
    """A second, a minute, an hour, a day; each event stands in its own."""
    timeline = Timeline()
    for at in range(0, seconds + 1, max(1, seconds // 1_000)):
        timeline.at(at).total_ms.add(at)
    assert timeline.width == width
    for middle, step in timeline.steps():
        if step.total_ms.count:
            assert middle - width / 2 <= step.total_ms.least
            assert step.total_ms.greatest < middle + width / 2


def test_requests_are_summed_up_by_their_weight() -> None:
    """One in ten is written: each counts ten times."""
    history = history_of(request(1), request(2, sample=0.1, tokens=7))
    assert history.answered["requests"] == pytest.approx(11)
    assert history.answered["rows"] == pytest.approx(22)
    assert history.answered["tokens"] == pytest.approx(70)
    assert history.total_ms.count == pytest.approx(11)


def test_the_slowest_batches_are_kept() -> None:
    """Ten of them, the slowest first; as slow ones in the order of their coming."""
    batches = [
        Record(at, {"event": "batch.completed", "rows": 1, "compute_ms": at % 20, "n": at})
        for at in range(40)
    ]
    kept = [fields["n"] for fields in history_of(*batches).slowest_batches()]
    assert kept == [19, 39, 18, 38, 17, 37, 16, 36, 15, 35]


def test_failures_are_counted_by_kind() -> None:
    """The code on the wire, or the event where there is none."""
    history = history_of(
        Record(1, {"event": "request.failed", "code": "overloaded", "reason": "full"}),
        Record(1, {"event": "worker.hung", "seconds": 30}),
        Record(1, {"event": "peer.connected"}),
    )
    assert [step.failed for _, step in history.timeline.steps()] == [
        {"overloaded": 1.0, "worker.hung": 1.0}
    ]
    assert history.failed == 2


def test_the_last_word_on_quantization_counts() -> None:
    """For each model, of each kind."""
    said = [
        Record(at, {"event": f"quantization.{what}", "model": model, "quantization": value})
        for at, (what, model, value) in enumerate(
            [("applied", "a", "int8"), ("applied", "b", "int8"), ("applied", "a", "int4")]
        )
    ]
    kept = history_of(*said).quantization
    assert {key: fields["quantization"] for key, fields in kept.items()} == {
        ("a", "quantization.applied"): "int4",
        ("b", "quantization.applied"): "int8",
    }


@given(st.dictionaries(st.sampled_from(
    ["total_ms", "queue_ms", "rows", "tokens", "compute_ms", "code", "reason", "pss_bytes", "model",
     "sample"]
), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())),
    st.sampled_from(["request.completed", "request.failed", "batch.completed",
                     "quantization.applied", "server.listening", "unknown"]))  # fmt: skip
def test_any_fields_are_taken(fields: dict[str, object], event: str) -> None:
    """Another version's events, or a damaged line's, are no reason to fail."""
    history = history_of(Record(1.0, {"event": event, **fields}))
    assert history.records == 1
    history.slowest_batches()
