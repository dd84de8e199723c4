"""`sidecar status` and `sidecar top`, with real and scripted daemons."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client_lib import Client
from client_lib.wire.errors import Draining
from client_lib.wire.messages import Request
from sidecar.cli import main
from sidecar.cli.console import Console
from sidecar.cli.top import Watch

from .client_lib.fake_daemon import Act, FakeDaemon
from .daemon import Daemon

_PATIENCE = 60


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A scripted daemon that is listening."""
    with FakeDaemon(tmp_path / "s") as running:
        yield running


@pytest.mark.slow
def test_status_of_a_daemon_that_serves(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` of a healthy daemon exits with 0, and prints a page or the whole map as JSON."""
    with Client(daemon.socket) as client:
        client.encode(["one text", "another"])
    assert main(["status", "--socket", str(daemon.socket)]) == 0
    page = capsys.readouterr().out
    for part in ("serving, healthy", "int8", "PSS at the start", "embed interactive"):
        assert part in page
    assert main(["status", "--socket", str(daemon.socket), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["statistics"]["since_start"]["requests"]["embed"]["interactive"]["texts"] >= 2
    assert status["models"][0]["reason"].startswith("QUANTIZATION_CONFIG is int8")
    assert status["socket"] == str(daemon.socket)


def test_no_daemon_is_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a daemon, `status` exits with 69, and names the socket and what to do."""
    assert main(["status", "--socket", str(tmp_path / "none")]) == 69
    printed = capsys.readouterr().err
    assert str(tmp_path / "none") in printed
    assert "sidecar serve" in printed


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"state": "serving", "healthy": True}, 0),
        ({"state": "serving", "healthy": False}, 1),
        ({"state": "draining", "healthy": True}, 1),
    ],
)
def test_the_exit_code_says_whether_it_is_well(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], status: dict[str, object], code: int
) -> None:
    """`status` exits with 0 only for a daemon that is healthy and serving."""
    fake.script = lambda _: {"status": status}
    assert main(["status", "--socket", str(fake.socket)]) == code
    assert str(status["state"]) in capsys.readouterr().out


def test_a_daemon_that_refuses_is_69(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` exits with 69 if the daemon answers with an error."""

    def refuse(_: Request) -> Act:
        raise Draining("going away")

    fake.script = refuse
    assert main(["status", "--socket", str(fake.socket)]) == 69
    assert "going away" in capsys.readouterr().err


def text_of(renderable: object) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_top_survives_a_restart(tmp_path: Path) -> None:
    """`top` waits while there is no daemon, and starts over with rates when one is back."""
    status = {"state": "serving", "healthy": True, "pid": 1, "since": "2026-01-01T00:00:00+00:00"}
    watch = Watch(tmp_path / "s")
    assert "waiting for the daemon" in text_of(watch.look())
    for pid in (1, 2):
        times = iter(range(10))
        with FakeDaemon(tmp_path / "s") as fake:
            fake.script = lambda _, pid=pid, times=times: {
                "status": {**status, "pid": pid, "up_seconds": next(times)}
            }
            assert "texts/s" not in text_of(watch.look())
            assert "0.0 texts/s" in text_of(watch.look())
        assert "waiting for the daemon" in text_of(watch.look())


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command on a pseudo-terminal; yield the process and the descriptor of its screen."""
    screen, terminal = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50"}
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", *arguments],
        stdin=terminal, stdout=terminal, stderr=terminal, env=environ,
    )  # fmt: skip
    os.close(terminal)
    try:
        yield process, screen
    finally:
        process.kill()
        process.wait(_PATIENCE)
        os.close(screen)


def read(screen: int) -> bytes:
    """Return output of the command; b"" once it has closed the terminal."""
    ready, _, _ = select.select([screen], [], [], _PATIENCE)
    assert ready
    try:
        return os.read(screen, 65_536)
    except OSError:
        return b""


@pytest.mark.slow
def test_top_on_a_terminal_ends_with_ctrl_c(daemon: Daemon) -> None:
    """Ctrl-C ends `top` with exit code 0, and restores the screen."""
    command = ("top", "--socket", str(daemon.socket), "--interval", "0.1")
    with on_a_terminal(*command) as (process, screen):
        seen = b""
        while b"texts/s" not in seen:
            seen += read(screen)
        process.send_signal(signal.SIGINT)
        while more := read(screen):
            seen += more
        assert process.wait(_PATIENCE) == 0
    assert b"\x1b[?1049l" in seen  # leaves the alternate screen
    assert b"Traceback" not in seen


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon"])
def test_an_interval_is_a_time(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An --interval that is not a positive, finite number is refused."""
    with pytest.raises(SystemExit, match="2"):
        main(["top", "--interval", interval])
    assert "--interval" in capsys.readouterr().err
