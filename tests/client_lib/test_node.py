"""A daemon shared by several processes: started by the first, stopped after the last."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from client_lib import Client, ConnectionLost
from client_lib.node import NodeDaemon, answers

pytestmark = pytest.mark.slow

_SECONDS = 20.0
_ROOT = Path(__file__).parents[2]
_USE = (
    "import sys; from pathlib import Path; from client_lib.node import NodeDaemon; "
    "NodeDaemon(Path(sys.argv[1]), sys.argv[2:]); print(flush=True); input()"
)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A node's folder, with a stub as the daemon; its path is short enough for a socket."""
    with TemporaryDirectory(prefix="node-") as place:
        monkeypatch.chdir(place)  # `python -m` looks there first
        stub = Path(__file__).parent / "stub_daemon"
        monkeypatch.setenv("PYTHONPATH", f"{stub}{os.pathsep}{_ROOT}")
        yield Path(place, "node")
        assert all_end(processes(Path(place)))


def processes(folder: Path) -> list[psutil.Process]:
    """Return the keeper and the daemon of a folder, in this order."""
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]
    return sorted(found, key=lambda process: "serve" in process.info["cmdline"])


def all_end(found: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(found, timeout=_SECONDS)
    return not alive


def status(daemon: NodeDaemon) -> dict[str, Any]:
    with Client(daemon.socket, timeout=_SECONDS) as client:
        return client.status()


def test_one_daemon_for_all_of_a_folder(folder: Path) -> None:
    """A folder's daemon is shared, outlives its first user and a kill, and ends with the last."""
    with subprocess.Popen(
        [sys.executable, "-c", _USE, folder, "--device", "cpu"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        assert first.stdout.readline()
        with NodeDaemon(folder, ["--device", "cuda"]) as second:
            before = status(second)
            assert before["flags"] == ["serve", "--socket", str(second.socket), "--device", "cpu"]
            first.kill()
            first.wait()
            psutil.Process(before["pid"]).kill()
            assert status(second)["pid"] != before["pid"]
            found = processes(folder)
            assert len(found) == 2
    assert all_end(found)
    assert not answers(folder / "sidecar.sock")
    assert len((folder.parent / "starts").read_text().splitlines()) == 2


def test_those_who_come_together_start_one(folder: Path, submit: Callable[..., Any]) -> None:
    """Concurrent users start one daemon, in folders private to the user despite the umask."""
    deep = folder / "of" / "all"
    before = os.umask(0)
    try:
        daemons = [future.result() for future in [submit(NodeDaemon, deep) for _ in range(3)]]
    finally:
        os.umask(before)
    for made in (folder, folder / "of", deep):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700, made
    assert len({status(daemon)["pid"] for daemon in daemons}) == 1
    assert len((folder / "of" / "starts").read_text().splitlines()) == 1
    for daemon in daemons[1:]:
        daemon.close()
        daemon.close()  # closing again does not release anybody else's lock
    assert answers(deep / "sidecar.sock")
    daemons[0].close()


def test_a_daemon_that_was_asked_to_end_is_not_started_again(folder: Path) -> None:
    """A daemon stopped by SIGTERM is not restarted until the next user arrives."""
    with NodeDaemon(folder) as daemon:
        found = processes(folder)
        found[1].terminate()
        assert all_end(found)
        with NodeDaemon(folder) as other:
            assert status(other)["pid"] == status(daemon)["pid"] != found[1].pid


def test_a_daemon_ends_with_its_keeper(folder: Path) -> None:
    """A daemon ends with its keeper, even if that is killed."""
    with NodeDaemon(folder):
        keeper, daemon = processes(folder)
        keeper.kill()
        assert all_end([keeper, daemon])


def test_of_what_a_daemon_said_the_end_is_told(folder: Path) -> None:
    """The error of a failed start ends with the last 2,000 characters of the log."""
    words = "the beginning " + "x" * 3000 + " the end"
    with pytest.raises(ConnectionLost) as refused:
        NodeDaemon(folder, ["--words", words])
    assert str(refused.value) == f"the daemon in {folder} did not start: {words[-2000:]}"
    assert (folder / "log").read_text() == words


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A real daemon that cannot start raises its reason and leaves no process."""
    folder = tmp_path / "node"
    with pytest.raises(ConnectionLost, match=r"did not start: .*--threads|did not start: .*many"):
        NodeDaemon(folder, ["--threads", "many"])
    assert all_end(processes(folder))
