"""Commands run by a user without a passwd entry and without HOME, as in many containers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_UID = "54321"
# It may read everything, or it could not run this interpreter, but cannot write root's files.
_CAPABILITIES = "-all,+dac_read_search"


def homeless(*arguments: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0 or not (setpriv := shutil.which("setpriv")):
        pytest.skip("only root may become another user")
    user = [f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"]
    rights = [f"--{kind}={_CAPABILITIES}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [setpriv, *user, *rights, sys.executable, "-m", "sidecar", *arguments],
        capture_output=True, text=True, timeout=240, check=False,
        env={"PYTHONPATH": root, "SIDECAR_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def test_the_cache_is_the_hosts(tmp_path: Path) -> None:
    """Without a home, the cache is /var/cache/sidecar, and a path starting with ~ is refused."""
    done = homeless("config", "--json")
    (cache,) = (row for row in json.loads(done.stdout) if row["variable"] == "SIDECAR_CACHE_DIR")
    assert cache["value"] == "/var/cache/sidecar"
    done = homeless("config", "--cache-dir", "~/models")
    assert (done.returncode, len(done.stderr.splitlines())) == (78, 1)
    assert "--cache-dir=~/models: no such home directory" in done.stderr


def test_what_needs_no_home_works() -> None:
    """`status` and `doctor` run without a home."""
    assert homeless("status").returncode == 69
    done = homeless("doctor")
    assert "Traceback" not in done.stderr
    assert "cores" in done.stdout


@pytest.mark.parametrize("command", [["prepare"], ["plan"], ["serve", "--embedding-model"]])
def test_a_cache_that_cannot_be_written_is_one_line_with_what_to_set(
    make_model: Callable[..., Path], tmp_path: Path, command: list[str]
) -> None:
    """An unwritable cache is reported in one line that names the setting to change."""
    if os.access("/var/cache/sidecar", os.F_OK):
        pytest.skip("this host has such a cache")
    tmp_path.chmod(0o777)
    where = {"serve": ["--socket", str(tmp_path / "s"), "--log-level", "error"]}
    done = homeless(*command, str(make_model()), *where.get(command[0], []))
    assert (done.returncode, len(done.stderr.splitlines())) == (78, 1)
    assert "/var/cache/sidecar cannot be written" in done.stderr
    assert "SIDECAR_CACHE_DIR" in done.stderr


def test_a_socket_that_cannot_be_made_is_one_line_with_what_to_set(
    make_model: Callable[..., Path],
) -> None:
    """A socket that cannot be created is reported in one line, before the model is read."""
    if os.access("/run/sidecar", os.F_OK):
        pytest.skip("this host has a folder for such sockets")
    done = homeless("serve", "--embedding-model", str(make_model()))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (78, "", 1)
    assert "/run/sidecar/sidecar.sock: user 54321 may not write to /run" in done.stderr
    assert "SIDECAR_SOCKET" in done.stderr


def test_a_cache_of_its_own_is_all_that_it_takes(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Given a writable cache, `prepare` works without a home."""
    tmp_path.chmod(0o777)
    done = homeless("prepare", str(make_model()), "--cache-dir", str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_model_at_a_home_that_there_is_not_is_not_there() -> None:
    """A model path under a missing home is reported as not found, in one line."""
    done = homeless("plan", "~/models/mine")
    assert (done.returncode, len(done.stderr.splitlines())) == (78, 1)
    assert "no model folder at ~/models/mine" in done.stderr
