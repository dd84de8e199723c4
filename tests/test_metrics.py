"""`sidecar metrics` with a real daemon."""

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as classic_families

from client_lib import Client
from sidecar.cli import main

from .daemon import Daemon


def value(text: str, name: str) -> float:
    """Return the sum of all samples called `name`."""
    samples = (sample for family in open_families(text) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == name)


@pytest.mark.slow
def test_metrics_are_printed(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics are printed as OpenMetrics by default, and count requests."""
    texts = []
    for _ in range(2):
        with Client(daemon.socket) as client:
            client.encode(["one text", "another"])
        assert main(["metrics", "--socket", str(daemon.socket)]) == 0
        texts.append(capsys.readouterr().out)
    before, after = (value(text, "sidecar_texts_total") for text in texts)
    assert after == before + 2
    assert value(texts[0], "sidecar_model_weight_bytes") > 20e6
    assert value(texts[0], "process_resident_memory_bytes") > 50e6


@pytest.mark.slow
def test_metrics_are_written_for_a_textfile_collector(daemon: Daemon, tmp_path: Path) -> None:
    """--format prometheus --output writes a world-readable file for a textfile collector."""
    file = tmp_path / "sidecar.prom"
    command = ["metrics", "--socket", str(daemon.socket), "--format", "prometheus"]
    assert main([*command, "--output", str(file)]) == 0
    types = {family.type for family in classic_families(file.read_text())}
    assert types == {"counter", "gauge", "histogram"}
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_73(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be written is reported in one line, with exit code 73."""
    file = tmp_path / "none" / "sidecar.prom"
    assert main(["metrics", "--socket", str(daemon.socket), "--output", str(file)]) == 73
    assert capsys.readouterr().err == f"sidecar: {file}: No such file or directory\n"


def test_no_daemon_is_69_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a daemon, the exit code is 69 and the old file stays; its age reveals the outage."""
    file = tmp_path / "sidecar.prom"
    file.write_text("before")
    command = ["metrics", "--socket", str(tmp_path / "none"), "--output", str(file)]
    assert main(command) == 69
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert file.read_text() == "before"
