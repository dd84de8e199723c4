"""Ray Data's actor on a real cluster of several nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from client_lib import Client

from ..daemon import Daemon


@pytest.mark.slow
def test_a_cluster_embeds_parquet(minilm_artifact: Path, daemon: Daemon, tmp_path: Path) -> None:
    """Rows are those of one client, byte for byte, though an actor is killed in the middle.

    Each node starts one daemon for its actors, and none is left. Then a job that fails is gone
    on with by Ray's checkpoint: no row is lost or there twice.
    """
    pytest.importorskip("ray.data")
    script = Path(__file__).with_name("ray_cluster.py")
    # A process of its own, for Ray leaves threads and signal handlers behind; and a folder of
    # its own, which it would leave, too. Paths of sockets are short, so pytest's is too long.
    with TemporaryDirectory(prefix="ray-") as session:
        environ = {"HOME": session, "RAY_TMPDIR": session, "SIDECAR_SOCKET": f"{session}/none"}
        done = subprocess.run(
            [sys.executable, script, minilm_artifact, tmp_path],
            capture_output=True, text=True, timeout=300, check=False,
            env=environ | {"PATH": os.environ["PATH"], "RAY_USAGE_STATS_ENABLED": "0"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    with Client(daemon.socket) as client:
        expected = client.encode(told["texts"])
    assert told["ids"] == list(range(len(told["texts"])))
    assert bytes.fromhex(told["vectors"]) == expected.tobytes()
    assert told["killed"]
    assert told["failed"]
    assert 0 < told["checkpointed"] < len(told["texts"])
    assert len(told["daemons"]) == 2
    for lives in told["daemons"]:  # never two at once, and the last one has ended
        assert lives
        assert lives == ["server.listening", "server.stopped"] * (len(lives) // 2)
    assert told["left"] == []
