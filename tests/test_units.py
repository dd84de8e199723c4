"""The units in systemd/, as checked by systemd itself."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sidecar.cli import _parser
from sidecar.cli.exits import EX_CONFIG, EX_TEMPFAIL
from sidecar.config import Config

UNITS = Path(__file__).parents[1] / "systemd"
INSTANCES = {"sidecar.service": "sidecar.service", "sidecar@.service": "sidecar@minilm.service"}
# Maximum exposure of each, in tenths. The gateway has network access, to this host's addresses.
SERVICES = {
    **dict.fromkeys((*INSTANCES.values(), "sidecar-metrics.service"), 6),
    "sidecar-gateway.service": 10,
}
OTHERS = ("sidecar.socket", "sidecar-metrics.timer")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this host"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the units, changed to run a command that exists on this host."""
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/sidecar/bin/sidecar", "/bin/true"))
    return tmp_path


def analyzed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@needs_systemd
def test_nothing_in_them_is_unknown(folder: Path) -> None:
    """`systemd-analyze verify` prints nothing; it exits with 0 even for unknown keys."""
    units = [f"./{name}" for name in (*SERVICES, *OTHERS)]
    done = analyzed("verify", *units, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(("unit", "most"), SERVICES.items())
def test_exposure_is_low(folder: Path, unit: str, most: int) -> None:
    """The exposure level of each unit is at most 0.6 of 10, or 1.0 with network access."""
    done = analyzed("security", "--offline=true", f"--threshold={most}", f"./{unit}", cwd=folder)
    assert done.returncode == 0, done.stdout[-500:]


@pytest.mark.parametrize("unit", INSTANCES)
def test_what_may_succeed_later_is_tried_again(unit: str) -> None:
    """The units restart after every exit code except that of a bad configuration."""
    text = (UNITS / unit).read_text()
    assert re.search("^Restart=always$", text, re.MULTILINE)
    (never,) = re.findall("^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert (never, EX_CONFIG, EX_TEMPFAIL) == ("78", 78, 75)


def test_the_instances_differ_in_names_alone() -> None:
    """The instantiated units differ from the plain ones only in names."""

    def settings(name: str) -> list[str]:
        text = (UNITS / name).read_text().replace("sidecar@%i", "sidecar")
        lines = re.sub("sidecar-%i|%i", "sidecar", text).splitlines()
        return [line for line in lines if not line.startswith(("#", "Description="))]

    for kind in ("socket", "service"):
        assert settings(f"sidecar.{kind}") == settings(f"sidecar@.{kind}")


def test_the_gateway_asks_for_a_key() -> None:
    """The gateway's unit requires a key, as every user can reach its address."""
    text = (UNITS / "sidecar-gateway.service").read_text().replace("\\\n", " ")
    (name, path) = re.findall("^LoadCredential=(.*):(.*)$", text, re.MULTILINE)[0]
    (command,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
    words = command.replace("${CREDENTIALS_DIRECTORY}", "/run/credentials").split()
    arguments = _parser(words[1:]).parse_args(words[1:])
    assert arguments.api_key_file == Path("/run/credentials", name)
    assert not arguments.allow_unauthenticated
    assert f"\nAssertPathExists={path}\n" in text


def test_every_setting_stands_in_the_environment_file() -> None:
    """sidecar.env lists every setting with its default, and all of them commented out."""
    lines = (UNITS / "sidecar.env").read_text().splitlines()
    assert not [line for line in lines if line and not line.startswith("#")]
    named = {line[1:].partition("=")[0] for line in lines if re.match(r"#[A-Z0-9_]+=", line)}
    assert named == {field.metadata["variable"] for field in dataclasses.fields(Config)}
