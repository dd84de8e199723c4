"""The units in systemd/, by systemd's own word."""

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
# Each with its exposure, at most, in tenths. The gateway has a network: this host's own addresses.
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
    """The units, with a command that exists on this host."""
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/sidecar/bin/sidecar", "/bin/true"))
    return tmp_path


def analyzed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@needs_systemd
def test_nothing_in_them_is_unknown(folder: Path) -> None:
    """`verify` has nothing to say; it exits 0 even for keys that it does not know."""
    units = [f"./{name}" for name in (*SERVICES, *OTHERS)]
    done = analyzed("verify", *units, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(("unit", "most"), SERVICES.items())
def test_exposure_is_low(folder: Path, unit: str, most: int) -> None:
    """Of 10, at most 0.6, or 1 with a network."""
    done = analyzed("security", "--offline=true", f"--threshold={most}", f"./{unit}", cwd=folder)
    assert done.returncode == 0, done.stdout[-500:]


@pytest.mark.parametrize("unit", INSTANCES)
def test_what_may_succeed_later_is_tried_again(unit: str) -> None:
    """A full disk, say: every exit code but that of a bad configuration starts the next daemon."""
    text = (UNITS / unit).read_text()
    assert re.search("^Restart=always$", text, re.MULTILINE)
    (never,) = re.findall("^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert (never, EX_CONFIG, EX_TEMPFAIL) == ("78", 78, 75)


def test_the_instances_differ_in_names_alone() -> None:
    """A setting that is good for the one daemon is good for one of many."""

    def settings(name: str) -> list[str]:
        text = (UNITS / name).read_text().replace("sidecar@%i", "sidecar")
        lines = re.sub("sidecar-%i|%i", "sidecar", text).splitlines()
        return [line for line in lines if not line.startswith(("#", "Description="))]

    for kind in ("socket", "service"):
        assert settings(f"sidecar.{kind}") == settings(f"sidecar@.{kind}")


def test_the_gateway_asks_for_a_key() -> None:
    """Its address is every user's, and the daemon's socket is its group's alone."""
    text = (UNITS / "sidecar-gateway.service").read_text().replace("\\\n", " ")
    (name, path) = re.findall("^LoadCredential=(.*):(.*)$", text, re.MULTILINE)[0]
    (command,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
    words = command.replace("${CREDENTIALS_DIRECTORY}", "/run/credentials").split()
    arguments = _parser(words[1:]).parse_args(words[1:])
    assert arguments.api_key_file == Path("/run/credentials", name)
    assert not arguments.allow_unauthenticated
    assert f"\nAssertPathExists={path}\n" in text


def test_every_setting_stands_in_the_environment_file() -> None:
    """Commented, each with its default, so that the file changes nothing until it is edited."""
    lines = (UNITS / "sidecar.env").read_text().splitlines()
    assert not [line for line in lines if line and not line.startswith("#")]
    named = {line[1:].partition("=")[0] for line in lines if re.match(r"#[A-Z0-9_]+=", line)}
    assert named == {field.metadata["variable"] for field in dataclasses.fields(Config)}
