"""What a daemon answers, and all that may answer instead."""

import socket
import threading
from pathlib import Path

import pytest

from client_lib import (
    CallTimeout,
    ConnectionLost,
    Draining,
    Forbidden,
    ProtocolError,
    UntrustedDaemon,
)
from sidecar.models.manifest import Speed
from sidecar.operate.doctor.daemon import (
    Answer,
    ask,
    check_answer,
    check_queue,
    check_requests,
    check_resident,
    check_same_threads,
    check_speed,
)
from sidecar.operate.doctor.finding import Severity
from sidecar.plan import Plan


def lost(cause: OSError) -> Answer:
    problem = ConnectionLost("no daemon")
    problem.__cause__ = cause
    return Answer(None, problem)


@pytest.mark.parametrize(
    ("answer", "severity", "found"),
    [
        (Answer({"version": "1", "healthy": True}), Severity.OK, "version 1"),
        (Answer({"healthy": False}), Severity.ERROR, "not healthy"),
        (lost(FileNotFoundError()), Severity.NOTE, "none runs"),
        (lost(ConnectionRefusedError()), Severity.WARNING, "stale"),
        (lost(BlockingIOError()), Severity.ERROR, "queue is full"),
        (Answer(None, Forbidden("user 5 is not among")), Severity.WARNING, "user 5"),
        (Answer(None, UntrustedDaemon("of user 5")), Severity.ERROR, "another user's: of user 5"),
        (Answer(None, Draining("draining")), Severity.NOTE, "about to end"),
        (Answer(None, CallTimeout("late")), Severity.ERROR, "no answer within"),
        (Answer(None, ProtocolError("HTTP")), Severity.ERROR, "no daemon of this kind: HTTP"),
    ],
)
def test_whatever_answers_is_told_apart(answer: Answer, severity: Severity, found: str) -> None:
    """From a healthy daemon to another program's socket."""
    (finding,) = check_answer(answer)
    assert finding.severity is severity
    assert found in finding.found


def test_nothing_listens(tmp_path: Path) -> None:
    """No file, and a file that a killed daemon left."""
    assert [f.severity for f in check_answer(ask(tmp_path / "none"))] == [Severity.NOTE]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "stale"))
    assert [f.severity for f in check_answer(ask(tmp_path / "stale"))] == [Severity.WARNING]


def test_another_program_listens(tmp_path: Path) -> None:
    """It speaks, but not this protocol."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
                connection.recv(1)

        thread = threading.Thread(target=greet)
        thread.start()
        (finding,) = check_answer(ask(tmp_path / "s"))
        thread.join()
    assert finding.severity is Severity.ERROR
    assert "no daemon of this kind" in finding.found


def test_requests_that_all_went_well() -> None:
    """Are counted; what a client asks the next daemon by itself is no failure."""
    (finding,) = check_requests({"completed": 5, "failed": {"draining": 2}})
    assert (finding.severity, finding.found) == (Severity.OK, "5 completed, none failed")


def test_failures_are_told_by_whose_fault_they_are() -> None:
    """The daemon's are warnings with advice; the callers' own are notes."""
    failed = {"overloaded": 3, "backend_failed": 1, "bad_request": 2}
    findings = list(check_requests({"completed": 4, "failed": failed}))
    assert [f.severity for f in findings] == [Severity.WARNING, Severity.WARNING, Severity.NOTE]
    assert "1 of 10" in findings[0].found
    assert "2 bad_request" in findings[2].found


@pytest.mark.parametrize(("rows", "severity"), [(10, Severity.OK), (90, Severity.WARNING)])
def test_a_queue_that_is_filling(rows: int, severity: Severity) -> None:
    """More than half of what may wait."""
    queue = {"interactive": {"rows": 0}, "bulk": {"rows": rows}, "bounds": {"rows": 100}}
    (finding,) = check_queue(queue)
    assert finding.severity is severity


def test_a_daemon_with_other_threads() -> None:
    """Its settings, or its cgroup, are not these."""
    plan = Plan("int8", "", 4, 8, "cpu")
    assert list(check_same_threads({"threads": 4}, plan)) == []
    (finding,) = check_same_threads({"threads": 2}, plan)
    assert finding.severity is Severity.NOTE


@pytest.mark.parametrize(("per_token", "severity"), [(0.1, Severity.OK), (1.0, Severity.WARNING)])
def test_speed_against_what_was_measured(per_token: float, severity: Severity) -> None:
    """The daemon's rows, on the lengths that were measured: 11 or 101 ms against 10."""
    cost = {"fixed_ms": 1.0, "per_token_ms": per_token}
    (finding,) = check_speed("m", cost, Speed(1.0, 20.0, 10.0), [50, 150])
    assert finding.severity is severity
    assert "10.00 ms when it was prepared" in finding.found


@pytest.mark.parametrize(("held", "severity"), [(100, Severity.OK), (950, Severity.WARNING)])
def test_memory_that_is_held(held: int, severity: Severity) -> None:
    """Nine tenths of the limit are close to being killed."""
    (finding,) = check_resident({"pss_bytes": held}, 1000)
    assert finding.severity is severity
    assert list(check_resident({}, 1000)) == []
