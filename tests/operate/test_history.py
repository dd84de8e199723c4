"""What is kept of a daemon's history, whatever its length."""

import pytest
from hypothesis import HealthCheck, given, settings
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
    """There are at most 240 steps and no event is lost, for any length and order of times."""
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
    """Steps have familiar widths, and each event is in its own step."""
    timeline = Timeline()
    for at in range(0, seconds + 1, max(1, seconds // 1_000)):
        timeline.at(at).total_ms.add(at)
    assert timeline.width == width
    for middle, step in timeline.steps():
        if step.total_ms.count:
            assert middle - width / 2 <= step.total_ms.least
            assert step.total_ms.greatest < middle + width / 2


def test_requests_are_summed_up_by_their_weight() -> None:
    """A request sampled at one in ten counts ten times."""
    history = history_of(request(1), request(2, sample=0.1, tokens=7))
    assert history.answered["requests"] == pytest.approx(11)
    assert history.answered["rows"] == pytest.approx(22)
    assert history.answered["tokens"] == pytest.approx(70)
    assert history.total_ms.count == pytest.approx(11)


def test_the_slowest_batches_are_kept() -> None:
    """The ten slowest batches are kept, slowest first, and ties in order of arrival."""
    batches = [
        Record(at, {"event": "batch.completed", "rows": 1, "compute_ms": at % 20, "n": at})
        for at in range(40)
    ]
    kept = [fields["n"] for fields in history_of(*batches).slowest_batches()]
    assert kept == [19, 39, 18, 38, 17, 37, 16, 36, 15, 35]


def test_failures_are_counted_by_kind() -> None:
    """Failures are counted by their code, or by the event if there is none."""
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
    """The last quantization event of each kind is kept per model."""
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


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw makes the alphabet
@given(st.dictionaries(st.sampled_from(
    ["total_ms", "queue_ms", "rows", "tokens", "compute_ms", "code", "reason", "pss_bytes", "model",
     "sample"]
), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())),
    st.sampled_from(["request.completed", "request.failed", "batch.completed",
                     "quantization.applied", "server.listening", "unknown"]))  # fmt: skip
def test_any_fields_are_taken(fields: dict[str, object], event: str) -> None:
    """Unknown events and malformed fields, as of another version, do not raise."""
    history = history_of(Record(1.0, {"event": event, **fields}))
    assert history.records == 1
    history.slowest_batches()


def test_it_knows_when_it_begins_and_ends() -> None:
    """The time span covers all events, in any order and of any kind."""
    history = history_of(Record(5.0, {"event": "x"}), Record(2.0, {"event": "x"}), request(9.0))
    assert (history.first, history.last, history.records) == (2, 9, 3)
    assert history_of().records == 0


def test_a_step_has_what_happened_in_it() -> None:
    """A step holds its weighted times, and what was answered and failed in it."""
    history = history_of(
        request(1.0, total_ms=8.0, queue_ms=3.0, tokens=7),
        request(1.5, total_ms=4.0, queue_ms=1.0, sample=0.5),
        request(2.0, total_ms=6.0),
        Record(2.2, {"event": "request.failed", "code": "overloaded", "sample": 0.25}),
    )
    (_, first), (_, second) = history.timeline.steps()
    assert (first.total_ms.count, first.total_ms.sum) == (3, 16)
    assert (first.queue_ms.count, first.queue_ms.sum) == (3, 5)
    assert first.answered == {"requests": 3, "rows": 6, "tokens": 7}
    assert first.failed == {}
    assert (second.total_ms.count, second.queue_ms.count) == (1, 0)
    assert second.failed == {"overloaded": 4}
    assert history.failed == 4
    (group,) = history.failures.groups()
    assert (group.key, group.count) == (("request.failed", "overloaded", ""), 4)


def test_who_asked_is_counted_by_process() -> None:
    """Requests, tokens and times are counted per process."""
    asked = [(7, 1, 10, 2.0), (7, 1, 20, 4.0), (7, 2, 5, 1.0)]
    history = history_of(
        *(
            request(1.0, peer_uid=uid, peer_pid=pid, tokens=tokens, total_ms=ms)
            for uid, pid, tokens, ms in asked
        )
    )
    first, second = history.askers.groups()
    assert (first.key, first.count, second.key) == ((7, 1), 2, (7, 2))
    assert first.summaries["tokens"].sum == 30
    assert first.summaries["total_ms"].mean == 3


def test_batches_are_counted_by_their_rows() -> None:
    """Batches are counted by rows and weight, and those without a time are never slowest."""
    batches = [
        {"rows": 3, "compute_ms": 1.0, "sample": 0.6},
        {"rows": 3, "compute_ms": 2.0},
        {"rows": 8},
        {"compute_ms": 9.0},
    ]
    history = history_of(*(Record(1.0, {"event": "batch.completed", **each}) for each in batches))
    assert history.batch_rows == {3: 3, 8: 1}
    assert [fields["compute_ms"] for fields in history.slowest_batches()] == [9, 2, 1]
    assert history.answered == {}


@pytest.mark.parametrize(
    "event",
    [
        "request.failed", "peer.failed", "peer.rejected", "peer.stalled", "loop.failed",
        "worker.crashed", "worker.hung", "server.reload_failed",
    ],
)  # fmt: skip
def test_each_kind_of_failure_counts(event: str) -> None:
    """Every failure event counts, by its code if that is not empty."""
    for code, kind in ((None, event), ("", event), ("forbidden", "forbidden"), (5, "5")):
        history = history_of(Record(1.0, {"event": event, "code": code}))
        ((_, step),) = history.timeline.steps()
        assert (history.failed, step.failed) == (1, {kind: 1})


@pytest.mark.parametrize("what", ["selected", "applied", "fell_back"])
def test_all_that_is_said_of_quantization_is_kept(what: str) -> None:
    """Every quantization event is kept, whatever its model's name."""
    history = history_of(Record(1.0, {"event": f"quantization.{what}", "model": 5}))
    assert list(history.quantization) == [("5", f"quantization.{what}")]
    assert history.failed == 0


def test_memory_is_what_was_told_last() -> None:
    """Memory is the last value reported by any event, and a step keeps all of its values."""
    history = history_of(
        Record(1.0, {"event": "server.memory", "pss_bytes": 10}),
        Record(1.5, {"event": "model.loaded", "pss_bytes": 30}),
        Record(2.0, {"event": "server.memory", "pss_bytes": 20}),
        Record(3.0, {"event": "server.memory", "pss_bytes": None}),
    )
    assert history.pss_bytes == 20
    (_, first), (_, second) = history.timeline.steps()
    assert (first.pss_bytes.count, first.pss_bytes.greatest) == (2, 30)
    assert second.pss_bytes.count == 1
    assert history_of(request(1.0)).pss_bytes is None


def test_a_hundred_starts_are_kept() -> None:
    """The last hundred starts are kept, and a reload is not a start."""
    starts = [Record(float(at), {"event": "server.listening"}) for at in range(101)]
    history = history_of(*starts, Record(500.0, {"event": "server.reloaded"}))
    assert list(history.starts) == [float(at) for at in range(1, 101)]


def test_a_step_in_which_nothing_happened_is_there() -> None:
    """An empty step between two others is yielded, with its midpoint."""
    timeline = Timeline()
    timeline.at(10.2).total_ms.add(1.0)
    timeline.at(12.9).total_ms.add(2.0)
    steps = list(timeline.steps())
    assert [middle for middle, _ in steps] == [10.5, 11.5, 12.5]
    assert [step.total_ms.count for _, step in steps] == [1, 0, 1]
    assert list(Timeline().steps()) == []


def test_steps_that_are_put_together_have_what_both_had() -> None:
    """Merged steps hold the times, memory and counts of both."""
    timeline = Timeline()
    for at in (0.0, 1.0):
        step = timeline.at(at)
        step.total_ms.add(at + 1)
        step.queue_ms.add(at + 2)
        step.pss_bytes.add(at + 3)
        add(step.answered, "rows", 2)
        add(step.failed, "overloaded", 3)
    timeline.at(300.0)
    assert timeline.width == 5
    _, step = next(timeline.steps())
    assert (step.total_ms.sum, step.queue_ms.sum, step.pss_bytes.sum) == (3, 5, 7)
    assert (step.answered, step.failed) == ({"rows": 4}, {"overloaded": 6})
