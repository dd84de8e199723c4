"""Ray Data's actor on a real cluster with several nodes."""

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
@pytest.mark.timeout(700)  # a busy host takes more than the usual limit
def test_a_cluster_embeds_parquet(minilm_artifact: Path, daemon: Daemon, tmp_path: Path) -> None:
    """A cluster computes the same bytes as one client, even if an actor is killed in the middle.

    Each node starts one daemon for its actors, and none is left afterwards. A job that fails
    resumes from Ray's checkpoint, with no row lost or duplicated.
    """
    pytest.importorskip("ray.data")
    script = Path(__file__).with_name("ray_cluster.py")
    # In a subprocess, as Ray leaves threads and signal handlers behind, and in a temporary folder,
    # as it leaves files, too. pytest's folder is too long for the path of a socket.
    with TemporaryDirectory(prefix="ray-") as session:
        environ = {"HOME": session, "RAY_TMPDIR": session, "SIDECAR_SOCKET": f"{session}/none"}
        done = subprocess.run(
            [sys.executable, script, minilm_artifact, tmp_path],
            capture_output=True, text=True, timeout=600, check=False,
            env=environ | {"PATH": os.environ["PATH"], "RAY_USAGE_STATS_ENABLED": "0"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    with Client(daemon.socket) as client:
        expected = client.encode(result["texts"])
    assert result["ids"] == list(range(len(result["texts"])))
    assert bytes.fromhex(result["vectors"]) == expected.tobytes()
    assert result["killed"]
    assert "out of luck" in result["failure"]
    assert 0 < result["checkpointed"] < len(result["texts"])
    assert len(result["daemons"]) == 2
    for lives in result["daemons"]:  # never two at once, and the last one has stopped
        assert lives
        assert lives == ["server.listening", "server.stopped"] * (len(lives) // 2)
    assert result["left"] == []
