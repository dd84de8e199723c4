"""The service manager's protocol, with the test's sockets in place of the manager's."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from sidecar.systemd import HandedOverError, Manager, take


@pytest.fixture
def manager_socket(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        yield receiver


def test_the_manager_is_told_line_by_line(manager_socket: socket.socket) -> None:
    """`notify` sends all assignments in one datagram."""
    environ = {"NOTIFY_SOCKET": manager_socket.getsockname(), "HOME": "/"}
    take(environ).notify(READY=1, STATUS="serving two models")
    assert manager_socket.recv(1024) == b"READY=1\nSTATUS=serving two models"
    assert environ == {"HOME": "/"}  # children must not notify for the service


def test_an_abstract_address_is_understood() -> None:
    """A leading @ in NOTIFY_SOCKET denotes the abstract namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0sidecar-test-{os.getpid()}")
        receiver.settimeout(10)
        Manager(notify_address=f"@sidecar-test-{os.getpid()}").notify(WATCHDOG=1)
        assert receiver.recv(1024) == b"WATCHDOG=1"


def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    """`notify` does nothing without a manager, and ignores one that has gone."""
    opened: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", lambda *kind: opened.append(kind))
        take({}).notify(READY=1)
    assert opened == []
    (tmp_path / "file").touch()
    for nobody in ("gone", "file"):
        Manager(notify_address=str(tmp_path / nobody)).notify(READY=1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("pid", "seconds"),
    [("", 30.0), pytest.param(str(os.getpid()), 30.0, id="own"), ("1", None)],
)
def test_the_watchdog_is_for_the_process_it_names(pid: str, seconds: float | None) -> None:
    """The watchdog applies if WATCHDOG_PID is empty or this process, and not otherwise."""
    environ = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": pid}
    assert take(environ).watchdog_seconds == seconds
    assert take({}).watchdog_seconds is None


def test_sockets_of_another_process_are_left_alone() -> None:
    """Sockets are ignored if LISTEN_PID is another process."""
    assert take({"LISTEN_FDS": "1", "LISTEN_PID": "1"}).listener is None


def test_more_than_one_socket_is_refused() -> None:
    """More than one socket is refused, as the daemon listens on one."""
    with pytest.raises(HandedOverError, match="passed 2 sockets"):
        take({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())})


RECEIVE = """
import os, socket, sys
from sidecar.systemd import HandedOverError, take
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
try:
    listener = take().listener
    print(listener.getsockname(), listener.get_inheritable())
except HandedOverError as error:
    print(error)
"""


def received(passed: socket.socket | IO[str]) -> str:
    """Return what a process prints about a socket that it inherits as descriptor 3."""
    done = subprocess.run(
        [sys.executable, "-c", RECEIVE],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: (os.dup2(passed.fileno(), 3), os.set_inheritable(3, True)),
        close_fds=False,
    )
    return done.stdout.strip()


def test_the_listening_socket_is_taken_over(tmp_path: Path) -> None:
    """The inherited listening socket is used, and not inherited by children."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        assert received(listener) == f"{tmp_path / 's.sock'} False"


def test_another_kind_of_socket_is_refused(tmp_path: Path) -> None:
    """A socket that is not listening, or not a Unix stream socket, is refused."""
    with socket.socket(socket.AF_UNIX) as bound, socket.socket() as tcp:
        bound.bind(str(tmp_path / "s.sock"))
        tcp.listen()
        for wrong in (bound, tcp):
            assert "not a listening Unix stream socket: set ListenStream=/a/path" in received(wrong)


@pytest.mark.parametrize("usec", ["", "1500000"])
def test_the_watchdog_counts_in_microseconds(usec: str) -> None:
    """WATCHDOG_USEC is in microseconds; without it there is no watchdog."""
    found = take({"WATCHDOG_USEC": usec, "WATCHDOG_PID": str(os.getpid())})
    assert found.watchdog_seconds == (1.5 if usec else None)


def test_all_that_a_manager_says_is_taken_out() -> None:
    """All variables of the manager are removed, as children must not inherit them."""
    names = (
        "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
        "LISTEN_FDNAMES",
    )  # fmt: skip
    environ = {**dict.fromkeys(names, "1"), "LISTEN_FDSX": "1"}
    assert take(environ) == Manager(notify_address="1")
    assert environ == {"LISTEN_FDSX": "1"}


def test_without_a_socket_passed_on_there_is_none() -> None:
    """Without socket activation there is no inherited listener."""
    assert take({"LISTEN_FDS": "", "LISTEN_PID": str(os.getpid())}).listener is None
    assert take({}) == Manager()


def test_a_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    """A descriptor that is not a socket is refused by number."""
    with (tmp_path / "file").open("w") as file:
        assert received(file).startswith("descriptor 3 is not a socket")


def test_a_socket_of_datagrams_is_refused(tmp_path: Path) -> None:
    """A datagram socket is refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(tmp_path / "s"))
        assert "not a listening Unix stream socket: set ListenStream=/a/path" in received(datagrams)
