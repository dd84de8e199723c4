"""What a daemon answers, and everything that may answer in its place."""

import socket
import threading
from pathlib import Path
from typing import Self

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
from sidecar.operate.doctor import daemon
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
        (Answer({"version": "1"}), Severity.OK, "version 1"),
        (Answer({"healthy": False}), Severity.ERROR, "not healthy"),
        (lost(FileNotFoundError()), Severity.NOTE, "not running"),
        (lost(ConnectionRefusedError()), Severity.WARNING, "stale"),
        (lost(BlockingIOError()), Severity.ERROR, "backlog is full"),
        (Answer(None, Forbidden("user 5 is not among")), Severity.WARNING, "user 5"),
        (Answer(None, UntrustedDaemon("of user 5")), Severity.ERROR, "another user: of user 5"),
        (Answer(None, Draining("draining")), Severity.NOTE, "shutting down"),
        (Answer(None, CallTimeout("late")), Severity.ERROR, "no answer within"),
        (Answer(None, ProtocolError("HTTP")), Severity.ERROR, "not a Sidecar daemon: HTTP"),
    ],
)
def test_whatever_answers_is_told_apart(answer: Answer, severity: Severity, found: str) -> None:
    """Each kind of answer has its own finding, from a healthy daemon to another program."""
    (finding,) = check_answer(answer)
    assert finding.severity is severity
    assert found in finding.found
    assert bool(finding.advice) == (severity is not Severity.OK)


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (Answer({"healthy": False}), "kill it"),
        (lost(FileNotFoundError()), "systemctl start sidecar`"),
        (lost(ConnectionRefusedError()), "start sidecar.socket"),
        (lost(BlockingIOError()), "restart it"),
        (Answer(None, Forbidden("user 5")), "SIDECAR_ALLOW_USERS and SIDECAR_ALLOW_GROUPS"),
        (Answer(None, UntrustedDaemon("of user 5")), "SIDECAR_DAEMON_USER"),
        (Answer(None, Draining("draining")), "try again"),
        (Answer(None, CallTimeout("late")), "still loading, hung"),
        (Answer(None, ProtocolError("HTTP")), "another program's socket"),
        (lost(OSError("reset")), "another program's socket"),
    ],
)
def test_the_advice_is_that_of_what_answers(answer: Answer, advice: str) -> None:
    """Each kind of answer has its own advice, such as to restart a daemon that hangs."""
    (finding,) = check_answer(answer)
    assert advice in finding.advice


def test_a_daemon_is_told_with_how_long_it_is_up() -> None:
    """The finding shows the daemon's version, pid, state, and uptime in seconds."""
    status = {"version": "1.2", "pid": 7, "state": "serving", "up_seconds": 12_345.6}
    (finding,) = check_answer(Answer(status))
    assert finding.found == "version 1.2, pid 7, serving, up for 12,346 s"
    (finding,) = check_answer(Answer({**status, "healthy": False}))
    assert finding.found == "version 1.2, pid 7, serving, up for 12,346 s, not healthy"


def test_a_daemon_is_asked_once_and_waited_for_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon is asked once, with a timeout of five seconds, so a hung one is a finding."""
    asked: list[tuple[object, ...]] = []

    class Asked:
        def __init__(self, path: Path, *, timeout: float, retries: bool) -> None:
            asked.append((path, timeout, retries))

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            asked.append(("left",))

        def status(self) -> dict[str, int]:
            return {"pid": 7}

    monkeypatch.setattr(daemon, "Client", Asked)
    assert ask(Path("/s")) == Answer({"pid": 7})
    assert asked == [(Path("/s"), 5.0, False), ("left",)]
    (finding,) = check_answer(Answer(None, CallTimeout("late")))
    assert finding.found == "no answer within 5 s"


def test_nothing_listens(tmp_path: Path) -> None:
    """A missing socket is a note, and a stale one, left by a killed daemon, a warning."""
    assert [f.severity for f in check_answer(ask(tmp_path / "none"))] == [Severity.NOTE]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "stale"))
    assert [f.severity for f in check_answer(ask(tmp_path / "stale"))] == [Severity.WARNING]


def test_another_program_listens(tmp_path: Path) -> None:
    """A program that speaks another protocol is reported as not a Sidecar daemon."""
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
    assert "not a Sidecar daemon" in finding.found


def test_requests_that_all_went_well() -> None:
    """Completed requests are counted; `draining`, which clients retry, is not a failure."""
    for failed in ({"draining": 2}, {}, None):
        (finding,) = check_requests({"completed": 5, "failed": failed})
        assert (finding.severity, finding.found) == (Severity.OK, "5 completed, none failed")
    (finding,) = check_requests({})
    assert finding.found == "0 completed, none failed"


def test_failures_are_told_by_whose_fault_they_are() -> None:
    """The daemon's failures are warnings with advice, the callers' own a note."""
    failed = {"overloaded": 3, "backend_failed": 1, "bad_request": 2}
    findings = list(check_requests({"completed": 4, "failed": failed}))
    assert [f.severity for f in findings] == [Severity.WARNING, Severity.WARNING, Severity.NOTE]
    assert findings[0].found == "1 of 10 requests ended with backend_failed"
    assert findings[1].found == "3 of 10 requests ended with overloaded"
    assert findings[2].found == "2 bad_request"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("backend_failed", "the model failed"),
        ("overloaded", "requests outpace computation"),
        ("deadline_exceeded", "timeouts are shorter"),
        ("forbidden", "SIDECAR_ALLOW_USERS"),
    ],
)
def test_what_the_daemon_may_be_blamed_for_has_advice_of_its_own(code: str, advice: str) -> None:
    """Each code that is the daemon's fault has its own advice; absent codes are omitted."""
    failed = {"overloaded": 0, "draining": 50, code: 2}
    (finding,) = check_requests({"completed": 1, "failed": failed})
    assert (finding.severity, finding.found) == (
        Severity.WARNING,
        f"2 of 3 requests ended with {code}",
    )
    assert advice in finding.advice


def test_failures_of_the_callers_own_are_one_note_by_code() -> None:
    """The callers' own errors are one note, by code in alphabetical order."""
    failed = {"too_large": 1, "bad_request": 2}
    (finding,) = check_requests({"completed": 4, "failed": failed})
    assert (finding.severity, finding.found) == (Severity.NOTE, "2 bad_request, 1 too_large")
    assert "request.failed" in finding.advice


@pytest.mark.parametrize(
    ("interactive", "bulk", "severity"),
    [
        (10, 10, Severity.OK),
        (30, 30, Severity.OK),
        (0, 31, Severity.WARNING),
        (31, 0, Severity.WARNING),
        (0, 90, Severity.WARNING),
    ],
)
def test_a_queue_that_is_filling(interactive: int, bulk: int, severity: Severity) -> None:
    """A lane that holds more than three tenths of its limit is a warning."""
    queue = {
        "interactive": {"rows": interactive},
        "bulk": {"rows": bulk},
        "bounds": {"rows": 100},
    }
    (finding,) = check_queue(queue)
    assert finding.severity is severity
    assert finding.found.startswith(f"{interactive} interactive, {bulk} bulk texts queued")
    assert finding.found.endswith("of at most 100") == (severity is Severity.WARNING)
    (finding,) = check_queue({"bulk": {"rows": bulk}})
    assert finding.severity is Severity.OK


def test_a_daemon_with_other_threads() -> None:
    """A daemon whose thread count differs from the planned one is a note."""
    plan = Plan("int8", "", 4, 8, "cpu")
    assert list(check_same_threads({"threads": 4}, plan)) == []
    assert list(check_same_threads({}, plan)) == []
    for threads in (2, 8):
        (finding,) = check_same_threads({"threads": threads}, plan)
        assert finding.severity is Severity.NOTE
        said = f"the daemon has {threads} inference threads, these settings give 4"
        assert finding.found == said
        assert "restart it" in finding.advice


@pytest.mark.parametrize(
    ("fixed", "per_token", "now", "severity"),
    [
        (1.0, 0.1, "11.00", Severity.OK),
        (1.0, 0.19, "20.00", Severity.OK),
        (1.5, 0.19, "20.50", Severity.WARNING),
        (1.0, 1.0, "101.00", Severity.WARNING),
        (0.0, 0.01, "1.00", Severity.OK),
    ],
)
def test_speed_against_what_was_measured(
    fixed: float, per_token: float, now: str, severity: Severity
) -> None:
    """A daemon that takes more than twice the measured time per text is a warning."""
    cost = {"fixed_ms": fixed, "per_token_ms": per_token}
    (finding,) = check_speed("m", cost, Speed(1.0, 20.0, 10.0), [20, 130, 150])
    assert finding.severity is severity
    assert finding.found == (
        f"m: a text of 100 tokens takes {now} ms on one thread; 10.00 ms when it was prepared"
    )
    assert ("other programs use the cores" in finding.advice) == (severity is Severity.WARNING)


@pytest.mark.parametrize(
    ("held", "severity"),
    [(100, Severity.OK), (900, Severity.OK), (901, Severity.WARNING), (2000, Severity.WARNING)],
)
def test_memory_that_is_held(held: int, severity: Severity) -> None:
    """A daemon that holds more than nine tenths of its memory limit is a warning."""
    for memory in ({"pss_bytes": held, "rss_bytes": 5}, {"pss_bytes": None, "rss_bytes": held}):
        (finding,) = check_resident(memory, 1000)
        assert finding.severity is severity
        assert ("MemoryMax" in finding.advice) == (severity is Severity.WARNING)
    assert list(check_resident({}, 1000)) == []
    (finding,) = check_resident({"rss_bytes": 1_234_000_000}, 4 * 10**9)
    assert finding.found == "the daemon holds 1,234 MB of 4,000 MB"
