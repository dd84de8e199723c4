"""What `sidecar status` and `sidecar top` show of a daemon's status."""

import json
from typing import Any

import pytest

from sidecar.cli.console import Console
from sidecar.cli.screen import render
from sidecar.operate.status import is_well, live_page, page, rates
from sidecar.operate.units import count, duration, milliseconds, size

TIMES = {
    "count": 9, "sum": 90.0, "mean": 10.0, "p50": 8.0, "p95": 123.4, "p99": 12_345.6,
    "max": 13_000.0, "buckets": [[8.0, 5], [16_384.0, 4]],
}  # fmt: skip
ROWS = {**TIMES, "count": 8, "buckets": [[1.0, 4], [2.0, 1], [4.0, 1], [16.0, 2]]}
ANSWERED = {
    "completed": 1_234_567, "texts": 2_000_000, "tokens": 80_000_000, "shared": 77, "cached": 5,
    "queue_ms": TIMES, "tokenize_ms": TIMES, "compute_ms": TIMES, "total_ms": TIMES,
}  # fmt: skip
PERIOD = {
    "requests": {op: {"interactive": ANSWERED, "bulk": ANSWERED} for op in ("embed", "rerank")},
    "failed": {"embed": {"overloaded": 12}},
    "not_admitted": {"bulk": {"overloaded": 11, "deadline_exceeded": 2}},
    "refused": {"forbidden": 3},
    "batches": {"interactive": {"rows": ROWS, "tokens": {**TIMES, "p50": 300.1, "p99": 528.0}}},
}
LOAD = {"rows": 8_192, "tokens": 123_456, "bytes": 1_000_000, "cost_ms": 61_000.0}
STATUS: dict[str, Any] = {
    "version": "0.1.0", "pid": 4242, "socket": "/run/sidecar/sidecar.sock", "state": "serving",
    "healthy": True, "since": "2026-11-20T19:11:02+00:00", "up_seconds": 100_000.0, "threads": 2,
    "models": [
        {
            "name": "all-MiniLM-L6-v2", "task": "embed", "quantization": "int8",
            "bytes_fp32": 90_261_528, "bytes_weights": 22_885_450,
            "quality": {"mean": 0.998947, "p1": 0.995281, "min": 0.99351, "texts": 40},
            "reason": "QUANTIZATION_CONFIG is int8; int8 measured 2.31 times as fast as [FP32]",
            "verified": {
                "versions": {"sentence-transformers": "6.2.0"}, "texts": 91, "outputs": 34,
                "cosine_min": 0.9999998, "score_error_max": None,
            },
        },
        {
            "name": "e5-small-v2", "task": "embed", "quantization": "int8",
            "prompts_missing": ["query", "document"],
        },
        {"name": "a-slow-one", "task": "rerank", "quantization": "none", "bytes_weights": 10**9},
    ],
    "queue": {
        "interactive": {**LOAD, "peers": {"pid 7 (uid 1000)": LOAD}},
        "bulk": {"rows": 0, "tokens": 0, "bytes": 0, "cost_ms": 0.0, "peers": {}},
        "bounds": {"rows": 16_384, "tokens": 4_194_304, "bytes": 268_435_456, "peer_share": 0.5},
    },
    "requests": {"completed": 1_234_567, "failed": {"overloaded": 12}, "in_flight": 3},
    "peers": [{"pid": pid, "uid": 0, "gid": 0, "connections": pid % 5} for pid in range(40, 60)],
    "memory": {
        "rss_bytes": 131_000_000, "pss_bytes": 113_000_000,
        "at_start": {"rss_bytes": 120_000_000, "pss_bytes": 97_000_000},
    },
    "process": {"cpu_seconds": 50.0},
    "statistics": {"recent_seconds": 300.0, "recent": PERIOD, "since_start": PERIOD},
}  # fmt: skip


def shown(sections: Any, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render(sections))
    return capture.get()


@pytest.mark.parametrize(
    "said",
    [
        "serving, healthy",
        "1 d 3 h, since 2026-11-20 19:11:02 UTC, pid 4242",
        "/run/sidecar/sidecar.sock",
        "as sentence-transformers 6.2.0: 91 texts, cosine 1.000000",
        "NO: nothing proves",
        "113 MB PSS, 131 MB RSS; 97 MB PSS at the start",
        "1,234,567 completed, 3 in flight, failed: overloaded 12",
        "bulk refused   overloaded 11, deadline_exceeded 2",
        "turned away    forbidden 3",
        "8.0M with 320.0M tokens; 308 shared a computation, 20 cached",
        "90 MB → 23 MB  0.9989, worst 0.9935",
        "2.31 times as fast as [FP32]",  # brackets are not markup
        "FP32       1,000 MB",
        "embed interactive   1.2M",
        "8.0 123 12s",
        "pid 7 (uid 1000)  8,192",
        "1 min 1 s  50%",
        "1: 50%, 2: 12%, 3-4: 12%, 9-16: 25%",
        "300 528",
        "and 12 more",
        "e5-small-v2  no prompt goes before queries and documents, though the model was trained",
    ],
)
def test_the_page_tells(said: str) -> None:
    """The page contains each of these texts, at a width that needs no wrapping."""
    assert said in shown(page(STATUS), width=120)


def test_the_page_fits_into_80_columns() -> None:
    """At 80 columns nothing is cut off, and only reasons and missing prompts wrap."""
    narrow, wide = shown(page(STATUS)), shown(page(STATUS), width=200)
    assert "…" not in narrow
    assert len(narrow.splitlines()) - len(wide.splitlines()) <= 2


def test_the_setting_that_brings_prompts_is_named() -> None:
    """The setting that adds prompts is named only if some are missing."""
    assert "set SIDECAR_PROMPTS=auto" in shown(page(STATUS), width=200)
    models = [{**model, "prompts_missing": []} for model in STATUS["models"]]
    assert "rompts" not in shown(page({**STATUS, "models": models}), width=200)


def test_a_capped_length_is_shown() -> None:
    """A setting that truncates texts is shown beside the model's own limit."""
    told = "truncates texts at 128 tokens; the model takes 256"
    model = {**STATUS["models"][0], "max_tokens": 128, "model_max_tokens": 256}
    assert told in shown(page({**STATUS, "models": [model]}), width=120)
    model["max_tokens"] = 256
    assert "truncates texts" not in shown(page({**STATUS, "models": [model]}), width=120)


def test_a_cache_is_shown_where_there_is_one() -> None:
    """An enabled cache is shown with its size and its hit rate."""
    cache = {"max_bytes": 64_000_000, "bytes": 12_000_000, "rows": 5_000, "hits": 3, "misses": 1}
    told = "12 MB of 64 MB hold 5,000 texts, 75% of 4 look-ups hit"
    assert told in shown(page({**STATUS, "cache": cache}))
    assert "look-ups" not in shown(page({**STATUS, "cache": {**cache, "max_bytes": 0}}))
    unasked = {**cache, "hits": 0, "misses": 0}
    assert "hold 5,000 texts" in shown(page({**STATUS, "cache": unasked}))


@pytest.mark.parametrize("key", STATUS)
def test_an_older_daemon_is_shown_as_far_as_it_tells(key: str) -> None:
    """A status that lacks any one key is still shown."""
    less = {name: value for name, value in STATUS.items() if name != key}
    assert shown(page(less))
    assert shown(live_page(less, rates(less, less)))


def test_an_empty_status_is_a_page() -> None:
    """Even an empty status is shown as a page."""
    assert "?" in shown(page({}))


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({}, True),
        ({"healthy": False}, False),
        ({"state": "reloading"}, True),
        ({"state": "draining"}, False),
    ],
)
def test_well_is_healthy_and_serving(changes: dict[str, Any], well: bool) -> None:
    """A daemon is well if it is healthy and serving or reloading, but not draining."""
    assert is_well({**STATUS, **changes}) is well


def test_an_unhealthy_daemon_says_so_first() -> None:
    """An unhealthy daemon is reported in the first line below the title."""
    assert "NOT HEALTHY" in shown(page({**STATUS, "healthy": False})).splitlines()[1]


def later(seconds: float, **changes: Any) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(json.dumps(STATUS))
    status["up_seconds"] += seconds
    answered = status["statistics"]["since_start"]["requests"]["embed"]["bulk"]
    answered["texts"] += 474
    answered["tokens"] += 20_000
    answered["completed"] += 20
    status["process"]["cpu_seconds"] += 3.0
    return {**status, **changes}


def test_rates_are_differences() -> None:
    """Rates are differences between two statuses over the daemon's own clock."""
    now = rates(STATUS, later(2.0))
    assert now is not None
    assert (now.texts, now.tokens, now.requests, now.cores) == (237, 10_000, 10, 1.5)
    assert "237.0 texts/s, 10,000 tokens/s, 10.0 requests/s, 1.5 cores" in shown(
        live_page(later(2.0), now)
    )


@pytest.mark.parametrize("changes", [{"pid": 1}, {"since": "2026-11-22T00:00:00+00:00"}])
def test_another_daemon_has_no_rates_yet(changes: dict[str, Any]) -> None:
    """There are no rates between statuses of different daemons, or without elapsed time."""
    assert rates(STATUS, later(2.0, **changes)) is None
    assert rates(STATUS, STATUS) is None


def test_numbers_are_short() -> None:
    """Numbers of any size take only a few characters."""
    assert [count(n) for n in (0, 9_999, 12_345, 4_500_000)] == ["0", "9,999", "12.3k", "4.5M"]
    assert [duration(s) for s in (0.2, 59.6, 3_600, 90_061)] == ["0 s", "1 min", "1 h", "1 d 1 h"]
    assert [milliseconds(ms) for ms in (0, 0.27, 9.94, 45.6, 1234, 12_345)] == [
        "0.00", "0.27", "9.9", "46", "1.2s", "12s",
    ]  # fmt: skip
    assert (size(113_400_000), size(None)) == ("113 MB", "?")


def rows_of(title: str, status: dict[str, Any]) -> list[tuple[str, ...]]:
    (section,) = (each for each in page(status) if each.title == title)
    return list(section.rows)


def test_sections_come_the_most_important_first() -> None:
    """Sections come in order of importance, `top` has its own order, and empty ones are omitted."""
    live = [section.title for section in live_page(STATUS, None)]
    recent = "Last 5 minutes, ms: p50 p95 p99"
    assert live == ["Daemon", recent, "Waiting", "Batches since start", "Peers", "Models"]
    assert [section.title for section in page(STATUS)] == [
        "Daemon", "Models", "Reasons", "Verified", "Missing prompts", recent,
        "Since start, ms: p50 p95 p99", "Waiting", "Batches since start", "Peers",
    ]  # fmt: skip
    assert [section.title for section in page({})] == ["Daemon"]


def test_the_last_minutes_are_not_the_time_since_the_start() -> None:
    """The last minutes and the time since the start have separate figures."""
    recent = {"requests": {"embed": {"bulk": {**ANSWERED, "completed": 7}}}}
    changed = {"recent_seconds": 600.0, "recent": recent, "since_start": PERIOD}
    status = {**STATUS, "statistics": changed}
    (row,) = rows_of("Last 10 minutes, ms: p50 p95 p99", status)
    assert row == ("embed bulk", "7", "8.0 123 12s", "8.0 123 12s", "8.0 123 12s")
    assert len(rows_of("Since start, ms: p50 p95 p99", status)) == 4


def test_each_phase_of_a_request_has_its_column() -> None:
    """Queue, compute and total times each have a column, in this order."""
    phases = {
        f"{name}_ms": {"p50": float(at), "p95": 10.0 * at, "p99": 100.0 * at}
        for at, name in enumerate(("queue", "tokenize", "compute", "total"), 1)
    }
    recent = {"requests": {"rerank": {"interactive": {**ANSWERED, **phases}}}}
    status = {**STATUS, "statistics": {"recent_seconds": 60.0, "recent": recent}}
    (row,) = rows_of("Last 1 minutes, ms: p50 p95 p99", status)
    assert row == ("rerank interactive", "1.2M", "1.0 10 100", "3.0 30 300", "4.0 40 400")


def test_what_waits_is_told_by_lane_and_by_who_has_the_most_work() -> None:
    """Each lane shows its fullest limit, and its eight peers with the most work."""
    peers = {f"pid {n}": {**LOAD, "rows": n, "cost_ms": 1000.0 * n} for n in range(1, 11)}
    bounds = {"rows": 100, "tokens": 1000, "bytes": 10_000, "peer_share": 0.5}
    lane = {"rows": 10, "tokens": 300, "bytes": 2_000, "cost_ms": 2_000.0, "peers": peers}
    status = {**STATUS, "queue": {"bulk": lane, "bounds": bounds}}
    first, *others = rows_of("Waiting", status)
    assert first == ("bulk", "10", "300", "2 s", "30%")
    assert [row[0] for row in others] == [f"  pid {n}" for n in range(10, 2, -1)]
    assert others[0] == ("  pid 10", "10", "123.5k", "10 s", "")
    for fullest, share in (("rows", "90%"), ("bytes", "90%")):
        full = {**lane, fullest: 0.9 * bounds[fullest]}
        (row, *_) = rows_of("Waiting", {**status, "queue": {"bulk": full, "bounds": bounds}})
        assert row[-1] == share
    (row, *_) = rows_of("Waiting", {**status, "queue": {"bulk": lane}})
    assert row[-1] == "0%"


def test_peers_are_told_by_who_has_the_most_connections() -> None:
    """The eight peers with the most connections are shown, and how many more there are."""
    peers = [{"pid": n, "uid": 7, "connections": n} for n in range(1, 9)]
    found = rows_of("Peers", {**STATUS, "peers": peers})
    assert found[0] == ("pid 8", "uid 7", "8")
    assert [row[0] for row in found] == [f"pid {n}" for n in range(8, 0, -1)]
    more = rows_of("Peers", {**STATUS, "peers": [*peers, {**peers[0], "connections": 0}]})
    assert more == [*found, ("and 1 more", "", "")]


def test_batches_are_told_by_their_texts_and_tokens() -> None:
    """Batch sizes are shown as shares of power-of-two buckets, beside their tokens."""
    rows = {"count": 10, "buckets": [[1.0, 1], [8.0, 9]]}
    batches = {"bulk": {"rows": rows, "tokens": {"p50": 20.4, "p99": 99.6}}}
    statistics = {"since_start": {"batches": batches}}
    (row,) = rows_of("Batches since start", {**STATUS, "statistics": statistics})
    assert row == ("bulk", "10", "1: 10%, 5-8: 90%", "20 100")


def test_models_are_told_one_by_one() -> None:
    """Each model has a row, in which unknown values are left empty."""
    told = {"name": "m", "task": "rerank", "quantization": "none", "bytes_fp32": 5_000_000,
            "bytes_weights": 5_000_000, "quality": None}  # fmt: skip
    assert rows_of("Models", {"models": [told, {}]}) == [
        ("m", "rerank", "FP32", "5 MB", ""),
        ("?", "?", "?", "?", ""),
    ]


def test_a_reranker_is_verified_by_its_scores() -> None:
    """A verified reranker shows its score error, and an unverified model a warning."""
    versions = {"sentence-transformers": "6.2"}
    proof = {"versions": versions, "texts": 9, "cosine_min": None, "score_error_max": 0.00002}
    models = [{"name": "m", "verified": proof}, {"name": "n", "verified": None}]
    assert rows_of("Verified", {"models": models}) == [
        ("m", "as sentence-transformers 6.2: 9 texts, scores within 2e-05"),
        ("n", "NO: nothing proves that it matches sentence-transformers"),
    ]


def test_requests_that_all_went_well() -> None:
    """Without failures the page says so, and shows no list of refusals."""
    status = {"requests": {"completed": 1_000, "in_flight": 2, "failed": {}}}
    daemon = dict(rows_of("Daemon", status))
    assert daemon["requests"] == "1,000 completed, 2 in flight, none failed"
    assert not {"turned away", "bulk refused", "cache"} & set(daemon)


def test_rates_take_the_right_figures() -> None:
    """Rates sum requests, texts and tokens over all operations and lanes."""
    before, after = later(0.0), later(0.0)
    after["up_seconds"] += 4.0
    for op in ("embed", "rerank"):
        for lane in ("interactive", "bulk"):
            answered = after["statistics"]["since_start"]["requests"][op][lane]
            for number, key in enumerate(("completed", "texts", "tokens"), 1):
                answered[key] += number
    after["process"]["cpu_seconds"] += 6.0
    found = rates(before, after)
    assert found is not None
    assert (found.requests, found.texts, found.tokens, found.cores) == (1, 2, 3, 1.5)
    assert rates(after, before) is None  # a clock that went backwards


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"), (9_999, "9,999"), (10_000, "10.0k"), (999_949, "999.9k"), (1_000_000, "1.0M"),
        (2_500_000_000, "2.5G"),
    ],
)  # fmt: skip
def test_counts_are_short(number: int, said: str) -> None:
    """Counts from ten thousand on are shown in thousands, millions or billions."""
    assert count(number) == said


def test_durations_are_the_two_largest_units() -> None:
    """Durations show the two largest units that are not zero."""
    assert [
        duration(s) for s in (59, 60, 61, 3_599, 3_661, 86_399, 86_400, 90_000, 8 * 86_400)
    ] == [
        "59 s",
        "1 min",
        "1 min 1 s",
        "59 min 59 s",
        "1 h 1 min",
        "23 h 59 min",
        "1 d",
        "1 d 1 h",
        "8 d",
    ]


def test_milliseconds_are_short() -> None:
    """Milliseconds have two digits below ten, are whole up to a second, then become seconds."""
    assert [milliseconds(ms) for ms in (0.994, 1, 9.94, 10, 999, 1_000, 9_900, 10_000)] == [
        "0.99", "1.0", "9.9", "10", "999", "1.0s", "9.9s", "10s",
    ]  # fmt: skip
