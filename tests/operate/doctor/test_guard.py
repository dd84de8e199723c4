"""Steps that fail, and steps that hang."""

import threading
from collections.abc import Iterator

import pytest

from sidecar.operate.doctor.finding import Finding, Severity, ok
from sidecar.operate.doctor.guard import Guard


def test_what_a_step_finds_is_passed_on() -> None:
    """The result of a successful step is passed on unchanged."""
    guard = Guard(60)
    assert guard.judge("c", lambda: iter([ok("c", "fine")])) == [ok("c", "fine")]
    assert guard.read("c", sum, [1, 2]) == 3
    assert guard.failures == []


def test_a_step_that_fails_is_a_finding() -> None:
    """A step that raises becomes one error finding, with its message on one line."""

    def fail() -> list[object]:
        raise PermissionError(13, "Permission\ndenied")

    (finding,) = Guard(60).judge("c", fail)
    assert finding.check == "c"
    assert finding.severity is Severity.ERROR
    assert finding.found == ("the check failed: PermissionError: [Errno 13] Permission denied")
    assert finding.advice


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), SystemExit(3), ValueError()])
def test_whatever_a_step_raises_ends_nothing(failure: BaseException) -> None:
    """Even a step that raises SystemExit or KeyboardInterrupt only becomes a finding."""

    def fail() -> None:
        raise failure

    guard = Guard(60)
    assert guard.read("c", fail) is None
    (finding,) = guard.failures
    what = f"{type(failure).__name__}: {str(failure) or 'no message'}"
    assert finding.found == f"the check failed: {what}"


def test_a_check_that_fails_half_way_is_that_one_finding() -> None:
    """A check that fails midway yields only its failure, without any earlier findings."""

    def fail() -> Iterator[Finding]:
        yield ok("c", "fine")
        raise ValueError("no such thing")

    guard = Guard(60)
    guard.read("earlier", int, "x")
    (finding,) = guard.judge("c", fail)
    assert finding.check == "c"
    assert [failure.check for failure in guard.failures] == ["earlier", "c"]
    assert guard.judge("c", lambda: iter([])) == []


def test_a_step_that_never_ends_is_one_too() -> None:
    """A step that hangs becomes a finding, and its thread is left behind as a daemon thread."""
    guard, over = Guard(0.01), threading.Event()
    threads: list[threading.Thread] = []

    def wait() -> None:
        threads.append(threading.current_thread())
        over.wait()

    assert guard.read("c", wait) is None
    left = [thread.daemon for thread in threads]
    over.set()  # in case the process would wait for the thread at exit
    assert left == [True]
    (finding,) = guard.failures
    assert (finding.check, finding.severity) == ("c", Severity.ERROR)
    assert finding.found == "not finished within 0.01 s"
    assert "state D" in finding.advice
