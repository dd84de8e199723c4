"""Steps that fail, and steps that never end."""

import threading

from sidecar.operate.doctor.finding import Severity, ok
from sidecar.operate.doctor.guard import Guard


def test_what_a_step_finds_is_passed_on() -> None:
    """Untouched."""
    guard = Guard(60)
    assert guard.judge("c", lambda: iter([ok("c", "fine")])) == [ok("c", "fine")]
    assert guard.read("c", sum, [1, 2]) == 3
    assert guard.failures == []


def test_a_step_that_fails_is_a_finding() -> None:
    """With what it said, in one line."""

    def fail() -> list[object]:
        raise PermissionError(13, "Permission\ndenied")

    (finding,) = Guard(60).judge("c", fail)
    assert finding.severity is Severity.ERROR
    assert "PermissionError" in finding.found
    assert "\n" not in finding.found


def test_a_step_that_never_ends_is_one_too() -> None:
    """And is left behind."""
    guard, over = Guard(0.01), threading.Event()
    assert guard.read("c", over.wait) is None
    over.set()
    (finding,) = guard.failures
    assert "not done within" in finding.found
