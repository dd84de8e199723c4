"""`sidecar doctor` as a whole, with healthy and broken daemons, sockets and artifacts."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client_lib import Client
from sidecar.cli import doctor as command
from sidecar.cli import main
from sidecar.cli.planning import host_and_plan, precision
from sidecar.operate.doctor import facts, processor
from sidecar.operate.doctor.facts import Case
from sidecar.operate.doctor.finding import Finding, Section, Severity

from .daemon import Daemon

OK, NOTE, WARNING, ERROR = Severity
NOBODY = 65534
COMMAND = "import sys; from sidecar.cli import main; sys.exit(main())"
# That user may not be able to read the interpreter's files, so import before switching.
AS_NOBODY = f"""
import os, sys
import sidecar.cli.doctor, sidecar.operate.doctor.models
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
{COMMAND}
"""
CODES = {"ok": 0, "note": 0, "warning": 1, "error": 2}
Doctor = Callable[..., dict[str, Any]]


def checked(code: int, printed: str) -> dict[str, Any]:
    """Return the report, after checking that the exit code matches its severity."""
    report = json.loads(printed)
    assert code == CODES[report["severity"]]
    severities = [finding["severity"] for finding in report["findings"]]
    assert report["severity"] == max(severities, key=list(CODES).index)
    return report


def doctor_apart(*arguments: str, program: str = COMMAND) -> dict[str, Any]:
    """Run the command in a subprocess."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SIDECAR_")}
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", "--json", *arguments],
        capture_output=True, text=True, timeout=300, check=False,
        env=clean | {"SIDECAR_DEVICE": "cpu"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return checked(done.returncode, done.stdout)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear the environment and skip slow checks whose result is always the same."""
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SIDECAR_DEVICE", "cpu")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(facts, "try_to_import", lambda: None)
    monkeypatch.setattr(processor, "_SAMPLE_SECONDS", 0.01)


@pytest.fixture
def doctor(
    alone: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    """A function that runs the command in this process and returns the report."""

    def run(*arguments: str, **environ: str) -> dict[str, Any]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = main(["doctor", "--json", *arguments])
        return checked(code, capsys.readouterr().out)

    return run


def found(report: dict[str, Any], check: str, *severities: str) -> list[str]:
    return [
        finding["found"]
        for finding in report["findings"]
        if finding["check"] == check and finding["severity"] in severities
    ]


@pytest.mark.parametrize(
    ("severities", "code", "worst"),
    [
        ([], 0, "ok"),
        ([OK], 0, "ok"),
        ([OK, NOTE, OK], 0, "note"),
        ([NOTE, WARNING, OK], 1, "warning"),
        ([ERROR, WARNING, NOTE, OK], 2, "error"),
        ([WARNING, ERROR], 2, "error"),
    ],
)
def test_it_exits_with_what_the_worst_finding_has(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    severities: list[Severity],
    code: int,
    worst: str,
) -> None:
    """The exit code is 0 for notes at most, 1 for warnings and 2 for errors, in any order."""
    findings = [Finding("c", each, f"it is {each.name}", "do it") for each in severities]
    sections = [Section("It is so", tuple(findings[:1])), Section("Or so", tuple(findings[1:]))]
    monkeypatch.setattr(command, "examine", lambda _: sections)
    assert main(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["severity"] == worst
    assert report["findings"] == [
        {
            "symptom": "Or so" if number else "It is so",
            "check": "c",
            "severity": each.name.lower(),
            "found": f"it is {each.name}",
            "advice": "do it",
        }
        for number, each in enumerate(severities)
    ]
    assert main(["doctor"]) == code
    page = capsys.readouterr().out
    counts = [severities.count(each) for each in (ERROR, WARNING, NOTE)]
    assert "{} errors, {} warnings, {} notes".format(*counts) in page
    # A symptom without findings has no heading; advice is printed below each finding.
    assert ("It is so" in page, "Or so" in page) == (len(severities) > 0, len(severities) > 1)
    assert page.count("→ do it") == len(severities)


def test_it_is_given_what_a_daemon_would_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The doctor examines the given flags, environment and file, and plans as the daemon does."""
    cases: list[Case] = []

    def examine(case: Case) -> list[Section]:
        cases.append(case)
        return []

    monkeypatch.setattr(command, "examine", examine)
    monkeypatch.setenv("SIDECAR_THREADS", "3")
    assert main(["doctor", "--max-inputs", "7", "--env-file", str(tmp_path / "env")]) == 0
    capsys.readouterr()
    (case,) = cases
    assert (case.flags, case.env_file) == ({"max_inputs": "7"}, tmp_path / "env")
    assert case.environ == dict(os.environ)
    assert (case.plan, case.precision) == (host_and_plan, precision)


@pytest.mark.slow
def test_a_daemon_that_is_well(daemon: Daemon, minilm_artifact: Path) -> None:
    """With a healthy daemon, every check runs without an error, and the daemon keeps running."""
    with Client(daemon.socket) as client:
        client.encode(["a text"])
    flags = ["--socket", str(daemon.socket), "--embedding-model", str(minilm_artifact)]
    report = doctor_apart(*flags)
    assert [f for f in report["findings"] if f["severity"] == "error"] == []
    checks = {finding["check"] for finding in report["findings"]}
    assert checks >= {
        "settings", "libraries", "model", "cache", "memory", "units", "socket", "allow-lists",
        "daemon", "requests", "quantization", "cores", "load", "instructions", "threads", "torch",
        "queue", "speed", "swap", "verification", "accuracy", "engine",
    }  # fmt: skip
    assert "int8" in found(report, "quantization", "ok")[0]
    for finding in report["findings"]:
        assert finding["advice"] or finding["severity"] in {"ok", "note"}
    assert daemon.process is not None
    assert daemon.process.poll() is None


def test_without_a_daemon_and_without_models(doctor: Doctor, tmp_path: Path) -> None:
    """A missing model is an error, and a missing daemon is a note."""
    report = doctor("--socket", str(tmp_path / "s"), "--embedding-model", "/no/such/model")
    assert found(report, "model", "error") == ["no model folder at /no/such/model"]
    assert found(report, "socket", "note")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_stale_socket(doctor: Doctor, tmp_path: Path, minilm_artifact: Path) -> None:
    """A stale socket is a warning, and is not removed."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    report = doctor("--socket", str(path), "--embedding-model", str(minilm_artifact))
    assert "stale" in found(report, "daemon", "warning")[0]
    assert path.is_socket()


@pytest.mark.slow
def test_a_broken_artifact(doctor: Doctor, tmp_path: Path, minilm_artifact: Path) -> None:
    """A missing file of an artifact is an error that names it."""
    artifact = shutil.copytree(minilm_artifact, tmp_path / "artifact")
    (artifact / "model.onnx.data").unlink()
    report = doctor("--socket", str(tmp_path / "s"), "--embedding-model", str(artifact))
    assert "model.onnx.data is missing" in found(report, "model", "error")[0]


def test_settings_that_a_daemon_refuses(doctor: Doctor, tmp_path: Path) -> None:
    """Invalid settings are errors, and the other checks still run."""
    file = tmp_path / "env"
    file.write_text("SIDECAR_THREAD=2\n")
    report = doctor("--env-file", str(file), "--max-inputs", "many", QUANTIZATION_CONFIG="fp16")
    errors = found(report, "settings", "error")
    assert "did you mean SIDECAR_THREADS?" in errors[0]
    assert errors[1].startswith("--max-inputs=many")
    assert "fp16 needs a CUDA device" in found(report, "plan", "error")[0]
    assert found(report, "cores", "ok", "note")


@pytest.mark.slow
def test_a_daemon_with_other_settings(
    doctor: Doctor, daemon: Daemon, minilm_folder: Path, tmp_path: Path
) -> None:
    """A daemon whose quantization differs from the settings causes a warning."""
    flags = ["--quantization", "int4", "--cache-dir", str(tmp_path)]
    report = doctor("--socket", str(daemon.socket), *flags)
    assert "not int4" in found(report, "quantization", "warning")[0]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not(daemon: Daemon, minilm_artifact: Path) -> None:
    """For a user who may not connect, the socket is an error."""
    flags = ["--socket", str(daemon.socket), "--embedding-model", str(minilm_artifact)]
    report = doctor_apart(*flags, program=AS_NOBODY)
    assert f"user {NOBODY} may not" in found(report, "socket", "error")[0]


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_it_reads_well(
    daemon: Daemon, minilm_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --json, symptoms are headings, and advice is printed below each finding."""
    flags = ["--embedding-model", str(minilm_artifact)]
    main(["doctor", "--socket", str(daemon.socket), *flags])
    page = capsys.readouterr().out
    for part in ("crashes at start", "Quantization is not", "slower than", "Accuracy"):
        assert part in page
    main(["doctor", "--socket", str(tmp_path / "s"), *flags])
    assert "→" in capsys.readouterr().out
