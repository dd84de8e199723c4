"""A daemon that several processes share: started by the first, ended after the last."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from client_lib import Client, ConnectionLost
from client_lib.node import NodeDaemon, answers

pytestmark = pytest.mark.slow

_SECONDS = 60.0


def processes(folder: Path) -> list[psutil.Process]:
    """Return the keeper and the daemon of a folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


def all_end(found: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(found, timeout=_SECONDS)
    return not alive


def flags(artifact: Path, folder: Path) -> list[str]:
    return ["--embedding-model", str(artifact), "--cache-dir", str(folder), "--device", "cpu"]


def test_one_daemon_for_all_of_a_folder(minilm_artifact: Path, tmp_path: Path) -> None:
    """A second user finds the first one's; it outlives that one, and a kill; then it ends."""
    folder, own = tmp_path / "node", flags(minilm_artifact, tmp_path)
    script = (
        "import sys; from pathlib import Path; from client_lib.node import NodeDaemon; "
        "NodeDaemon(Path(sys.argv[1]), sys.argv[2:]); print(flush=True); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, folder, *own],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with first:
        assert first.stdout is not None
        assert first.stdout.readline()
        with NodeDaemon(folder, own) as second, Client(second.socket, timeout=_SECONDS) as client:
            pid = client.status()["pid"]
            first.kill()
            first.wait()
            vectors = client.encode(["a text"])
            psutil.Process(pid).kill()
            assert client.encode(["a text"]).tobytes() == vectors.tobytes()
            assert client.status()["pid"] != pid
            found = processes(folder)
            assert len(found) == 2
    assert all_end(found)
    assert not answers(folder / "sidecar.sock")


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    """And nothing of it is left."""
    folder = tmp_path / "node"
    with pytest.raises(ConnectionLost, match=r"did not start: .*--threads|did not start: .*many"):
        NodeDaemon(folder, ["--threads", "many"])
    assert all_end(processes(folder))
