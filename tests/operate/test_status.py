"""What `sidecar status` and `sidecar top` show, from the map that the daemon sends."""

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
        "8.0M of 320.0M tokens; 308 shared a computation, 20 cached",
        "90 MB → 23 MB  0.9989, worst 0.9935",
        "2.31 times as fast as [FP32]",  # brackets are no markup
        "FP32  1,000 MB",
        "embed interactive   1.2M",
        "8.0 123 12s",
        "pid 7 (uid 1000)  8,192",
        "1 min 1 s  50%",
        "1: 50%, 2: 12%, 3-4: 12%, 9-16: 25%",
        "300 528",
        "and 12 more",
        "e5-small-v2  nothing goes before queries and documents, where the model was trained with",
    ],
)
def test_the_page_tells(said: str) -> None:
    """Each of these stands on it, at a width at which nothing has to be broken."""
    assert said in shown(page(STATUS), width=120)


def test_the_page_fits_into_80_columns() -> None:
    """Nothing is cut off; only reasons and what is missing may take a second line."""
    narrow, wide = shown(page(STATUS)), shown(page(STATUS), width=200)
    assert "…" not in narrow
    assert len(narrow.splitlines()) - len(wide.splitlines()) <= 2


def test_the_setting_that_brings_prompts_is_named() -> None:
    """Where they are missing, and nowhere else."""
    assert "set SIDECAR_PROMPTS=auto" in shown(page(STATUS), width=200)
    models = [{**model, "prompts_missing": []} for model in STATUS["models"]]
    assert "rompts" not in shown(page({**STATUS, "models": models}), width=200)


def test_a_capped_length_is_shown() -> None:
    """With the model's own, where a setting cuts texts before that."""
    told = "cuts texts at 128 tokens; the model takes 256"
    model = {**STATUS["models"][0], "max_tokens": 128, "model_max_tokens": 256}
    assert told in shown(page({**STATUS, "models": [model]}), width=120)
    model["max_tokens"] = 256
    assert "cuts texts" not in shown(page({**STATUS, "models": [model]}), width=120)


def test_a_cache_is_shown_where_there_is_one() -> None:
    """How full it is, and how often it had what was asked."""
    cache = {"max_bytes": 64_000_000, "bytes": 12_000_000, "rows": 5_000, "hits": 3, "misses": 1}
    told = "12 MB of 64 MB hold 5,000 texts, 75% of 4 look-ups hit"
    assert told in shown(page({**STATUS, "cache": cache}))
    assert "look-ups" not in shown(page({**STATUS, "cache": {**cache, "max_bytes": 0}}))
    unasked = {**cache, "hits": 0, "misses": 0}
    assert "hold 5,000 texts" in shown(page({**STATUS, "cache": unasked}))


@pytest.mark.parametrize("key", STATUS)
def test_an_older_daemon_is_shown_as_far_as_it_tells(key: str) -> None:
    """Whatever is missing leaves its place empty; the rest is there."""
    less = {name: value for name, value in STATUS.items() if name != key}
    assert shown(page(less))
    assert shown(live_page(less, rates(less, less)))


def test_an_empty_status_is_a_page() -> None:
    """The least that a daemon may say."""
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
    """A daemon that drains still answers, but takes nothing new."""
    assert is_well({**STATUS, **changes}) is well


def test_an_unhealthy_daemon_says_so_first() -> None:
    """In the first line below the title."""
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
    """Over the daemon's own clock."""
    now = rates(STATUS, later(2.0))
    assert now is not None
    assert (now.texts, now.tokens, now.requests, now.cores) == (237, 10_000, 10, 1.5)
    assert "237.0 texts/s, 10,000 tokens/s, 10.0 requests/s, 1.5 cores" in shown(
        live_page(later(2.0), now)
    )


@pytest.mark.parametrize("changes", [{"pid": 1}, {"since": "2026-11-22T00:00:00+00:00"}])
def test_another_daemon_has_no_rates_yet(changes: dict[str, Any]) -> None:
    """What the one did before is no measure of what the other does."""
    assert rates(STATUS, later(2.0, **changes)) is None
    assert rates(STATUS, STATUS) is None


def test_numbers_are_short() -> None:
    """A few characters each, whatever their size."""
    assert [count(n) for n in (0, 9_999, 12_345, 4_500_000)] == ["0", "9,999", "12.3k", "4.5M"]
    assert [duration(s) for s in (0.2, 59.6, 3_600, 90_061)] == ["0 s", "1 min", "1 h", "1 d 1 h"]
    assert [milliseconds(ms) for ms in (0, 0.27, 9.94, 45.6, 1234, 12_345)] == [
        "0.00", "0.27", "9.9", "46", "1.2s", "12s",
    ]  # fmt: skip
    assert (size(113_400_000), size(None)) == ("113 MB", "?")
