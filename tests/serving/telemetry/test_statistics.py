"""The daemon's statistics, since its start and over the last minutes."""

import pytest

from client_lib.wire.replies import Timings
from sidecar.serving.results import Answer
from sidecar.serving.telemetry.statistics import Statistics


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def statistics(clock):
    return Statistics(clock)


def answer(*, rows=1, tokens=10, queue_ms=1.0, compute_ms=2.0, cached=0, shared=0):
    timings = Timings(
        queue_ms, 0.1, compute_ms, queue_ms + compute_ms, rows, tokens, cached, shared
    )
    return Answer("tiny", rows, tokens, (), timings)


def test_requests_are_counted_by_operation_and_lane(statistics):
    """Requests, texts, tokens and times are counted by operation and lane."""
    statistics.answered("embed", "interactive", answer(rows=2, tokens=30, cached=1))
    statistics.answered("embed", "interactive", answer(rows=1, tokens=5, queue_ms=4.0, shared=1))
    statistics.answered("rerank", "bulk", answer(rows=7))
    requests = statistics.to_map()["since_start"]["requests"]
    assert {op: list(lanes) for op, lanes in requests.items()} == {
        "embed": ["interactive"], "rerank": ["bulk"],
    }  # fmt: skip
    embed = requests["embed"]["interactive"]
    assert (embed["completed"], embed["texts"], embed["tokens"]) == (2, 3, 35)
    assert (embed["cached"], embed["shared"]) == (1, 1)
    assert embed["queue_ms"]["sum"] == 5.0
    assert embed["queue_ms"]["max"] == 4.0
    assert embed["total_ms"]["buckets"] == [[4.0, 1], [8.0, 1]]


def test_errors_and_refusals_are_counted_by_code(statistics):
    """Failed requests, requests not admitted and refusals are counted separately, by code."""
    statistics.failed("embed", "overloaded")
    statistics.failed("embed", "overloaded")
    statistics.failed("rerank", "overloaded")
    statistics.not_admitted("bulk", "overloaded")
    statistics.refused("forbidden")
    whole = statistics.to_map()["since_start"]
    assert whole["failed"] == {"embed": {"overloaded": 2}, "rerank": {"overloaded": 1}}
    assert whole["not_admitted"] == {"bulk": {"overloaded": 1}}
    assert whole["refused"] == {"forbidden": 1}
    assert statistics.since_start().failed_by_code == {"overloaded": 3}


def test_batches_are_counted_by_lane(statistics):
    """The rows and tokens of batches are counted by lane."""
    statistics.batch("bulk", 16, 900)
    statistics.batch("bulk", 2, 40)
    batches = statistics.to_map()["since_start"]["batches"]["bulk"]
    assert batches["rows"]["buckets"] == [[2.0, 1], [16.0, 1]]
    assert batches["tokens"]["sum"] == 940


@pytest.mark.parametrize("step", [5.0, 7.0, 59.0, 60.0, 61.0, 150.0])
def test_recent_is_the_last_four_to_five_minutes(statistics, clock, step):
    """Recent counts cover the last four to five minutes; the total keeps everything."""
    times = []
    while clock.now < 2000:
        statistics.answered("embed", "interactive", answer())
        times.append(clock.now)
        recent = statistics.recent().completed
        assert sum(t > clock.now - 240 for t in times) <= recent
        assert recent <= sum(t > clock.now - 300 for t in times)
        assert statistics.since_start().completed == len(times)
        clock.now += step


def test_all_that_was_counted_stays_counted(statistics, clock):
    """Over any number of periods, no count is lost or mixed up with another."""

    def count(times):
        for _ in range(times):
            timings = Timings(1.0, 3.0, 9.0, 27.0, 5, 60, 7, 8)
            statistics.answered("embed", "bulk", Answer("tiny", 11, 130, (), timings))
            statistics.failed("rerank", "cancelled")
            statistics.not_admitted("interactive", "overloaded")
            statistics.refused("forbidden")
            statistics.batch("interactive", 2, 50)

    def check(done, times):
        counts = done.to_map()
        embed = counts["requests"]["embed"]["bulk"]
        sizes = {name: embed[name] for name in ("completed", "texts", "tokens", "cached", "shared")}
        assert sizes == {
            "completed": times, "texts": 11 * times, "tokens": 130 * times, "cached": 7 * times,
            "shared": 8 * times,
        }  # fmt: skip
        for phase, each in (("queue", 1), ("tokenize", 3), ("compute", 9), ("total", 27)):
            assert embed[f"{phase}_ms"]["sum"] == each * times
            assert embed[f"{phase}_ms"]["count"] == times
        assert counts["failed"] == {"rerank": {"cancelled": times}}
        assert counts["not_admitted"] == {"interactive": {"overloaded": times}}
        assert counts["refused"] == {"forbidden": times}
        batches = counts["batches"]["interactive"]
        assert (batches["rows"]["sum"], batches["tokens"]["sum"]) == (2 * times, 50 * times)
        assert (done.completed, done.failed_by_code) == (times, {"cancelled": times})

    for minute in range(1, 4):
        count(2)
        check(statistics.recent(), 2 * minute)
        check(statistics.since_start(), 2 * minute)
        clock.now += 60
    clock.now += 86_400
    count(1)
    check(statistics.recent(), 1)
    check(statistics.since_start(), 7)
    status = statistics.to_map()
    assert status["recent_seconds"] == 300
    assert status["recent"] == statistics.recent().to_map()
    assert status["since_start"] == statistics.since_start().to_map()


def test_a_long_silence_leaves_nothing_recent(statistics, clock):
    """After a long silence, nothing is recent, and only one period is kept."""
    statistics.answered("embed", "interactive", answer())
    clock.now += 86_400
    assert statistics.recent().completed == 0
    assert statistics.since_start().completed == 1
    assert len(statistics._recent) == 1


def test_reading_changes_nothing(statistics):
    """Reading the statistics does not change them."""
    statistics.answered("embed", "interactive", answer())
    assert statistics.to_map() == statistics.to_map()
