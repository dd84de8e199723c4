"""Memory: grants of every size."""

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

GB = 10**9


def test_more_models_and_larger_ones_need_more() -> None:
    """And a daemon needs something for itself."""
    bare, one, two = needed_bytes([]), needed_bytes([23 * 10**6]), needed_bytes([23 * 10**6] * 2)
    assert 0 < bare < one < two
    assert two < needed_bytes([10**9])


@pytest.mark.parametrize(
    ("limit", "needed", "severity"),
    [
        (4 * GB, GB, Severity.OK),
        (2 * GB, int(1.55 * GB), Severity.NOTE),
        (GB, int(0.9 * GB), Severity.WARNING),
        (GB, 2 * GB, Severity.ERROR),
    ],
)
def test_a_limit_against_what_is_needed(limit: int, needed: int, severity: Severity) -> None:
    """Enough, enough but for full queues, hardly enough, too little: with both figures."""
    (finding,) = check_memory(limit, "MemoryMax of the unit", needed, Config())
    assert finding.severity is severity
    assert f"{limit / 1e6:,.0f} MB" in finding.found
    assert f"{needed / 1e6:,.0f} MB" in finding.found


@pytest.mark.parametrize(("limit", "severity"), [(4 * GB, Severity.OK), (GB // 2, Severity.ERROR)])
def test_preparing_takes_more_than_serving(limit: int, severity: Severity) -> None:
    """Where that is not granted, another host can do it."""
    (finding,) = check_preparing(limit, "this host", [90 * 10**6])
    assert finding.severity is severity
    assert list(check_preparing(limit, "this host", [])) == []


@pytest.mark.parametrize(
    ("swap", "severity"),
    [
        (Swap(0, 0), Severity.OK),
        (Swap(GB, 0), Severity.OK),
        (Swap(GB, GB // 2), Severity.NOTE),
    ],
)
def test_swap_in_use_is_noted(swap: Swap, severity: Severity) -> None:
    """Weights that lie there make a daemon stall."""
    (finding,) = check_swap(swap)
    assert finding.severity is severity


def test_this_machine_can_be_read() -> None:
    """Whatever it has."""
    swap = read_swap()
    assert swap.total >= swap.used >= 0
