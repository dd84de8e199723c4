"""The memory checks, under limits of every size."""

from types import SimpleNamespace

import psutil
import pytest

from sidecar.config import Config
from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.memory import (
    Swap,
    check_memory,
    check_preparing,
    check_swap,
    needed_bytes,
    read_swap,
)

GB, MB = 10**9, 10**6


def test_what_is_needed_is_that_of_a_daemon_and_of_each_model() -> None:
    """A daemon needs 85 MB for itself, 25 MB per model, and 1.1 times each model's weights."""
    assert needed_bytes([]) == 85 * MB
    assert needed_bytes([20 * MB]) == (85 + 25 + 22) * MB
    assert needed_bytes([20 * MB, 100 * MB]) == (85 + 25 + 22 + 25 + 110) * MB


def test_more_models_and_larger_ones_need_more() -> None:
    """The estimate grows with the number and the size of models, from a positive base."""
    bare, one, two = needed_bytes([]), needed_bytes([23 * 10**6]), needed_bytes([23 * 10**6] * 2)
    assert 0 < bare < one < two
    assert two < needed_bytes([10**9])


@pytest.mark.parametrize(
    ("limit", "needed", "severity"),
    [
        (4 * GB, GB, Severity.OK),
        (2 * GB, int(1.59 * GB), Severity.OK),
        (GB, int(0.75 * GB), Severity.NOTE),
        (GB, int(0.9 * GB), Severity.WARNING),
        (GB, 2 * GB, Severity.ERROR),
        (GB, GB + 1, Severity.ERROR),
        (GB, GB, Severity.WARNING),
        (GB, 800 * MB + 1, Severity.WARNING),
        (GB, 800 * MB, Severity.NOTE),
        (GB, GB - 2 * 150 * MB + 1, Severity.NOTE),
        (GB, GB - 2 * 150 * MB, Severity.OK),
    ],
)
def test_a_limit_against_what_is_needed(limit: int, needed: int, severity: Severity) -> None:
    """A memory limit may be ample, too small for full queues, tight, or too small to serve."""
    config = Config(max_queue_bytes=150 * MB)
    (finding,) = check_memory(limit, "MemoryMax of the unit", needed, config)
    assert finding.severity is severity
    assert finding.found.startswith(
        f"MemoryMax of the unit grants {limit / 1e6:,.0f} MB; "
        f"serving takes about {needed / 1e6:,.0f} MB"
    )
    queues = "full queues would take another 300 MB"
    assert (queues in finding.found) == (severity is Severity.NOTE)
    advice = {
        Severity.OK: "",
        Severity.NOTE: "lower SIDECAR_MAX_QUEUE_BYTES",
        Severity.WARNING: "a quarter more",
        Severity.ERROR: "QUANTIZATION_CONFIG=int4",
    }
    assert advice[severity] in finding.advice
    assert bool(finding.advice) == bool(advice[severity])


@pytest.mark.parametrize(
    ("limit", "severity"),
    [
        (4 * GB, Severity.OK),
        (GB // 2, Severity.ERROR),
        (565 * MB, Severity.OK),
        (565 * MB - 1, Severity.ERROR),
    ],
)
def test_preparing_takes_more_than_serving(limit: int, severity: Severity) -> None:
    """Preparing is judged by the largest model; if it does not fit, another host is suggested."""
    for unprepared in ([90 * MB], [50 * MB, 90 * MB, 10 * MB]):
        (finding,) = check_preparing(limit, "this host", unprepared)
        assert finding.severity is severity
        assert finding.found == (
            f"this host grants {limit / 1e6:,.0f} MB; preparing takes about 565 MB, once"
        )
        assert ("--portable" in finding.advice) == (severity is Severity.ERROR)
    assert list(check_preparing(limit, "this host", [])) == []


@pytest.mark.parametrize(
    ("swap", "severity", "found", "advice"),
    [
        (Swap(0, 0), Severity.OK, "none on this host", ""),
        (Swap(GB, 0), Severity.OK, "none of 1,000 MB in use", ""),
        (Swap(GB, GB // 2), Severity.NOTE, "500 MB of 1,000 MB swap in use", "MemorySwapMax=0"),
        (Swap(GB, 1), Severity.NOTE, "0 MB of 1,000 MB swap in use", "MemorySwapMax=0"),
    ],
)
def test_swap_in_use_is_noted(swap: Swap, severity: Severity, found: str, advice: str) -> None:
    """Swap in use is a note, as a daemon stalls when its weights are swapped out."""
    (finding,) = check_swap(swap)
    assert (finding.severity, finding.found) == (severity, found)
    assert advice in finding.advice
    assert bool(finding.advice) == bool(advice)


def test_this_machines_swap_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The total and the used bytes of this machine's swap are read."""
    swap = read_swap()
    assert swap.total >= swap.used >= 0
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=7, used=3, free=4))
    assert read_swap() == Swap(7, 3)
