"""The command line: its output and its exit codes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from sidecar.cli import main, planning
from sidecar.events import journal
from sidecar.host import read_host
from sidecar.models import fp16, library
from sidecar.models.probes import probe_inputs
from sidecar.models.torch_model import TorchModel
from sidecar.models.torch_pipeline import Source

from .command import sidecar

MakeModel = Callable[..., Path]


def test_config_shows_value_and_source() -> None:
    """`config` lists every setting with its value and its source."""
    done = sidecar("config", "--json", "--threads", "3", QUANTIZATION_CONFIG="auto")
    settings = {row["variable"]: row for row in json.loads(done.stdout)}
    assert settings["SIDECAR_THREADS"]["value"] == 3
    assert settings["SIDECAR_THREADS"]["source"] == "flag"
    assert settings["QUANTIZATION_CONFIG"]["value"] == "auto"
    assert settings["QUANTIZATION_CONFIG"]["source"] == "environment"
    assert settings["USE_QUANTIZATION"]["source"] == "default"
    assert settings["SIDECAR_PROMPTS"]["value"] == ""
    done = sidecar("config", "--json", SIDECAR_PROMPTS='{"query":"Suche: "}')
    settings = {row["variable"]: row for row in json.loads(done.stdout)}
    assert settings["SIDECAR_PROMPTS"]["value"] == '{"query": "Suche: "}'


def test_config_is_readable() -> None:
    """Without --json, `config` prints a table with the names of the variables."""
    assert "SIDECAR_MAX_QUEUE_ROWS" in sidecar("config", COLUMNS="160").stdout


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["events"]])
def test_a_reader_that_leaves_early_is_no_error(arguments: list[str]) -> None:
    """A broken pipe on standard output, as from `| head`, prints nothing and exits with 141."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", *arguments],
            stdout=output, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        ([], {"QUANTIZATION_CONFIG": "int2"}, "must be one of auto, int8, int4, fp16, none"),
        ([], {"QUANTIZATION_CONFIG": "fp16"}, "fp16 needs a CUDA device and a CUDA build of torch"),
        (["--threads", "many"], {}, "--threads=many: must be a whole number"),
        (["--embedding-model", "/no/such/model"], {}, "no model folder at /no/such/model"),
        (["--prompts", '{"query": 1}'], {}, "every prompt must be a string"),
        (["--env-file", "/no/such/file"], {}, "--env-file /no/such/file cannot be read"),
    ],
)
def test_bad_configuration_is_one_line_and_78(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], message: str
) -> None:
    """`serve` rejects an unusable configuration with one line on stderr and exit code 78."""
    done = sidecar("serve", "--socket", str(tmp_path / "s"), *arguments, **environ)
    assert done.returncode == 78
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_journal_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve` exits with 78 if the journal is requested by name but missing."""
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "none")
    assert main(["serve", "--log-target", "journal"]) == 78
    assert (
        f"SIDECAR_LOG_TARGET=journal: there is no socket at {tmp_path}" in capsys.readouterr().err
    )


def test_live_socket_is_refused(tmp_path: Path) -> None:
    """A second daemon on the same socket is refused before it loads anything."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        done = sidecar("serve", "--socket", str(tmp_path / "s"))
    assert done.returncode == 78
    assert "another daemon is listening" in done.stderr


def test_prepare_writes_an_artifact(make_model: MakeModel, tmp_path: Path) -> None:
    """`prepare` writes the artifact to --output and prints its manifest."""
    output = tmp_path / "artifact"
    done = sidecar("prepare", str(make_model()), "--output", str(output), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["quantization"] == "int8"
    assert (output / "manifest.json").is_file()


def test_prepare_refuses_a_cache_that_others_may_write_to(
    minilm_folder: Path, tmp_path: Path
) -> None:
    """`prepare` refuses a world-writable cache, as no daemon would serve from it."""
    tmp_path.chmod(0o777)
    done = sidecar("prepare", str(minilm_folder), "--cache-dir", str(tmp_path))
    assert done.returncode == 78
    assert "everybody may write to it" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_prepare_summarises_for_people(make_model: MakeModel, tmp_path: Path) -> None:
    """Without --json, `prepare` prints a summary of the weights' size and the closeness."""
    done = sidecar("prepare", str(make_model(classifier=True)), "--cache-dir", str(tmp_path))
    assert "weights" in done.stdout
    assert "closeness" in done.stdout


def test_plan_measures_and_says_why(make_model: MakeModel, tmp_path: Path) -> None:
    """`plan` shows the host, each candidate's speed and the reason, and measures only once."""
    command = ["plan", str(make_model()), "--json", "--cache-dir", str(tmp_path)]
    done = sidecar(*command, SIDECAR_INT8_FLOOR="0.9", QUANTIZATION_CONFIG="auto")
    plan = json.loads(done.stdout)
    assert plan["host"]["cores"] >= 1
    assert set(plan["candidates"]) == {"none", "int8"}
    assert plan["choice"] in {"none", "int8"}
    assert "times as fast as FP32" in plan["reason"]
    assert plan["alone"]["speed"]["1 thread"]["short_ms"] > 0
    again = sidecar(*command, SIDECAR_INT8_FLOOR="0.9", QUANTIZATION_CONFIG="auto")
    assert json.loads(again.stdout) == plan


def test_plan_of_an_artifact_is_what_was_measured_when_it_was_prepared(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """`plan` of an artifact shows its own measurements, as it has no FP32 to measure again."""
    artifact = tmp_path / "artifact"
    sidecar("prepare", str(make_model()), "--output", str(artifact), SIDECAR_INT8_FLOOR="0.9")
    done = sidecar("plan", str(artifact), "--json", SIDECAR_INT8_FLOOR="0.9")
    assert json.loads(done.stdout)["choice"] == "int8"


def test_plan_is_readable(make_model: MakeModel, tmp_path: Path) -> None:
    """Without --json, `plan` prints a readable page."""
    done = sidecar(
        "plan", str(make_model()), "--cache-dir", str(tmp_path), SIDECAR_INT8_FLOOR="0.9"
    )
    for part in ("processor", "int8", "choice", "because"):
        assert part in done.stdout


def test_plan_on_a_cuda_host(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a CUDA host, `plan` names the device and measures FP16 (here computed by the CPU)."""
    host = replace(read_host(), cuda="Some GPU")
    monkeypatch.setattr(planning, "read_host", lambda probe: host)
    monkeypatch.setattr(library, "load_fp16", in_half_on_the_cpu)
    monkeypatch.setattr(fp16, "probe_inputs", lambda task: probe_inputs(task)[:8])
    before = structlog.get_config()
    try:
        assert main(["plan", str(make_model()), "--json"]) == 0
    finally:
        structlog.configure(**before)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["host"]["cuda"], plan["device"], plan["threads"]) == ("Some GPU", "cuda", 1)
    assert set(plan["candidates"]) == set(plan["bytes"]) == {"none", "fp16"}
    assert plan["choice"] == "fp16"
    assert "fp16 measured" in plan["reason"]


def in_half_on_the_cpu(source: Source, *, device: str, floor: float) -> TorchModel:
    assert device == "cuda"
    return fp16.load_fp16(source, device="cpu", floor=floor)


@pytest.mark.slow
def test_demo_works_and_leaves_nothing(tmp_path: Path, minilm_artifact: Path) -> None:
    """The demo exits with 0, shows each of its parts, and removes its folder."""
    done = sidecar("demo", "--embedding-model", str(minilm_artifact), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for part in ("quantized", "batches", "search", "Rerank", "identical", "memory"):
        assert part in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_demo_says_why_it_could_not_start() -> None:
    """If its model does not exist, the demo names it and exits with 69 instead of hanging."""
    done = sidecar("demo", "--embedding-model", "/no/such/model")
    assert done.returncode == 69
    assert "no model folder at /no/such/model" in done.stderr
