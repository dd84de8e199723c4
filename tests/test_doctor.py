"""The whole command, against daemons, sockets and artifacts as they can be met."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from client_lib import Client

from .daemon import Daemon

pytestmark = pytest.mark.slow

NOBODY = 65534
COMMAND = "import sys; from sidecar.cli import main; sys.exit(main())"
# The interpreter may lie where that user cannot read it: what is needed is imported before.
AS_NOBODY = f"""
import os, sys
import sidecar.cli.doctor, sidecar.operate.doctor.models
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
{COMMAND}
"""


def doctor(*arguments: str, program: str = COMMAND, **environ: str) -> dict[str, Any]:
    """Run it; the report comes with the exit code, which has to be that of its severity."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SIDECAR_")}
    clean["SIDECAR_DEVICE"] = "cpu"
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", "--json", *arguments],
        capture_output=True, text=True, env=clean | environ, timeout=300, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    codes = {"ok": 0, "note": 0, "warning": 1, "error": 2}
    assert done.returncode == codes[report["severity"]]
    return report


def found(report: dict[str, Any], check: str, *severities: str) -> list[str]:
    return [
        finding["found"]
        for finding in report["findings"]
        if finding["check"] == check and finding["severity"] in severities
    ]


def test_a_daemon_that_is_well(daemon: Daemon, minilm_artifact: Path) -> None:
    """Everything is looked at, nothing is an error, and the daemon is what it was."""
    with Client(daemon.socket) as client:
        client.encode(["a text"])
    flags = ["--socket", str(daemon.socket), "--embedding-model", str(minilm_artifact)]
    report = doctor(*flags)
    assert [f for f in report["findings"] if f["severity"] == "error"] == []
    checks = {finding["check"] for finding in report["findings"]}
    assert checks >= {
        "settings", "libraries", "model", "cache", "memory", "units", "socket", "allow-lists",
        "daemon", "requests", "quantization", "cores", "load", "instructions", "threads", "torch",
        "queue", "speed", "accuracy", "engine",
    }  # fmt: skip
    assert "int8" in found(report, "quantization", "ok")[0]
    for finding in report["findings"]:
        assert finding["advice"] or finding["severity"] in {"ok", "note"}
    assert daemon.process is not None
    assert daemon.process.poll() is None


def test_without_a_daemon_and_without_models(tmp_path: Path) -> None:
    """What could be served is an error, that none runs a note."""
    report = doctor("--socket", str(tmp_path / "s"), "--embedding-model", "/no/such/model")
    assert found(report, "model", "error") == ["no model folder at /no/such/model"]
    assert found(report, "socket", "note")
    assert list(tmp_path.iterdir()) == []


def test_a_stale_socket(tmp_path: Path, minilm_artifact: Path) -> None:
    """Left by a daemon that was killed; it stays where it is."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    report = doctor("--socket", str(path), "--embedding-model", str(minilm_artifact))
    assert "stale" in found(report, "daemon", "warning")[0]
    assert path.is_socket()


def test_a_broken_artifact(tmp_path: Path, minilm_artifact: Path) -> None:
    """What is missing is named."""
    artifact = shutil.copytree(minilm_artifact, tmp_path / "artifact")
    (artifact / "model.onnx.data").unlink()
    report = doctor("--socket", str(tmp_path / "s"), "--embedding-model", str(artifact))
    assert "model.onnx.data is missing" in found(report, "model", "error")[0]


def test_settings_that_a_daemon_refuses(tmp_path: Path) -> None:
    """Bad values are findings like others, and the rest is looked at all the same."""
    file = tmp_path / "env"
    file.write_text("SIDECAR_THREAD=2\n")
    report = doctor("--env-file", str(file), "--max-inputs", "many", QUANTIZATION_CONFIG="fp16")
    errors = found(report, "settings", "error")
    assert "did you mean SIDECAR_THREADS?" in errors[0]
    assert errors[1].startswith("--max-inputs=many")
    assert "fp16 needs a CUDA device" in found(report, "plan", "error")[0]
    assert found(report, "cores", "ok", "note")


def test_a_daemon_with_other_settings(daemon: Daemon, minilm_folder: Path, tmp_path: Path) -> None:
    """Int4 is configured, and int8 is what serves."""
    flags = ["--quantization", "int4", "--cache-dir", str(tmp_path)]
    report = doctor("--socket", str(daemon.socket), *flags)
    assert "not int4" in found(report, "quantization", "warning")[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_who_may_not(daemon: Daemon, minilm_artifact: Path) -> None:
    """Is told so, and how that is mended; what else cannot be read is a finding, too."""
    flags = ["--socket", str(daemon.socket), "--embedding-model", str(minilm_artifact)]
    report = doctor(*flags, program=AS_NOBODY)
    assert f"user {NOBODY} may not" in found(report, "socket", "error")[0]


def test_it_reads_well(daemon: Daemon, minilm_artifact: Path, tmp_path: Path) -> None:
    """For people: the symptoms as headings, the advice below what was found."""
    flags = ["--socket", str(daemon.socket), "--embedding-model", str(minilm_artifact)]
    page = page_of(*flags)
    for part in ("crashes at start", "Quantization is not", "slower than", "Accuracy"):
        assert part in page
    assert "→" in page_of("--socket", str(tmp_path / "s"), *flags[2:])


def page_of(*flags: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", *flags],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "COLUMNS": "120"},
    ).stdout  # fmt: skip
