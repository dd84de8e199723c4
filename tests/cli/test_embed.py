"""`sidecar embed` with a real daemon: resuming after a kill gives the same bytes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from client_lib import Client

from ..daemon import Daemon
from .command import sidecar

pytestmark = pytest.mark.slow

# Enough for several requests: progress is recorded after the first, while others are computed.
TEXTS = [f"{number}: {'a text of some words ' * (number % 5)}" for number in range(768)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def fresh(minilm_artifact: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that has not computed any vector yet."""
    with Daemon(tmp_path, "--embedding-model", str(minilm_artifact)) as daemon:
        yield daemon


@contextmanager
def half_done(daemon: Daemon, corpus: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the command, and yield once some, but not all, of the vectors are written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "embed", corpus, "-o", output,
         "--socket", daemon.socket],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    with process:
        while rows_of(output) == 0:
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it exited with {process.wait(0.02)}: {process.communicate()}")
        assert rows_of(output) < len(TEXTS)
        yield process


def rows_of(output: Path) -> int:
    with suppress(FileNotFoundError):
        note = output.with_name(f"{output.name}.part") / "note.json"
        return int(json.loads(note.read_text())["rows"])
    return 0


def expected(daemon: Daemon) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with Client(daemon.socket) as client:
        return client.encode(TEXTS)


def test_a_kill_loses_nothing(fresh: Daemon, corpus: Path, tmp_path: Path) -> None:
    """After a kill, the same command resumes and writes the file of an uninterrupted run."""
    output, whole = tmp_path / "out.npy", tmp_path / "whole.npy"
    with half_done(fresh, corpus, output) as process:
        process.kill()
    before = rows_of(output)
    assert 0 < before < len(TEXTS)
    done = sidecar("embed", str(corpus), "-o", str(output), "--socket", str(fresh.socket))
    assert done.returncode == 0, done.stderr
    assert f"{len(TEXTS)} texts" in done.stdout
    flags = ("--socket", str(fresh.socket), "--json")
    done = sidecar("embed", str(corpus), "-o", str(whole), *flags)
    assert json.loads(done.stdout)["model"] == "all-MiniLM-L6-v2"
    assert output.read_bytes() == whole.read_bytes()


def test_ctrl_c_says_how_to_go_on(fresh: Daemon, corpus: Path, tmp_path: Path) -> None:
    """Ctrl-C exits with 130 and explains how to resume, without a traceback, also for Parquet."""
    pq = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "out.parquet"
    with half_done(fresh, corpus, output) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "sidecar: interrupted" in err
    assert f"of {len(TEXTS)} texts are in {output}.part: run the same command to resume" in err
    assert "Traceback" not in err
    assert not output.exists()
    done = sidecar("embed", str(corpus), "-o", str(output), "--socket", str(fresh.socket))
    assert done.returncode == 0, done.stderr
    table = pq.read_table(output)
    assert table["text"].to_pylist() == TEXTS
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    assert vectors.tobytes() == expected(fresh).tobytes()


def test_a_daemon_that_restarts_is_waited_for(fresh: Daemon, corpus: Path, tmp_path: Path) -> None:
    """If the daemon is killed and restarted, `embed` continues, with no row lost or misplaced."""
    output = tmp_path / "out.npy"
    with half_done(fresh, corpus, output) as process:
        fresh.kill()
        fresh.start()
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert np.load(output).tobytes() == expected(fresh).tobytes()
