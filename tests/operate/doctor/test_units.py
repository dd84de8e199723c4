"""The units, judged by the properties that systemd shows."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.units import Systemd, check_units, read_systemd, shipped_units

SOCKET = Path("/run/sidecar/sidecar.sock")
SERVICE = {
    "Id": "sidecar.service", "LoadState": "loaded", "ActiveState": "active",
    "SubState": "running", "NRestarts": "0", "ProcSubset": "all", "PrivateUsers": "no",
    "NeedDaemonReload": "no", "MemoryMax": "infinity", "FragmentPath": "", "DropInPaths": "",
}  # fmt: skip


def severities(version: int = 252, **changes: str) -> list[Severity]:
    systemd = Systemd(version, [{**SERVICE, **changes}])
    return [finding.severity for finding in check_units(systemd, {})]


def test_a_unit_that_is_well() -> None:
    """A running unit is OK, as is a host without systemd; missing units are a note."""
    assert severities() == [Severity.OK]
    (finding,) = check_units(Systemd(252, [SERVICE]), {})
    assert finding.found == "sidecar.service is active (running), systemd 252"
    (finding,) = check_units(Systemd(0), {})
    assert (finding.severity, finding.found) == (Severity.OK, "systemd does not run here")
    (finding,) = check_units(Systemd(252, [{**SERVICE, "LoadState": "not-found"}]), {})
    assert finding.severity is Severity.NOTE
    assert finding.found == "systemd 252, no Sidecar unit installed"
    assert "docs/operations.md" in finding.advice


def test_a_unit_may_be_at_rest() -> None:
    """An inactive service is OK, as is one without a restart count, or a listening socket."""
    assert severities(ActiveState="inactive", SubState="dead") == [Severity.OK]
    assert severities(NRestarts="") == [Severity.OK]
    socket = {"Id": "sidecar.socket", "LoadState": "loaded", "ActiveState": "active"}
    assert [f.severity for f in check_units(Systemd(252, [socket]), {})] == [Severity.OK]
    assert severities(ExecMainStatus="78") == [Severity.OK]


FAILED, RELOADED = {"ActiveState": "failed", "SubState": "failed"}, "`systemctl daemon-reload`"
JOURNAL = "`journalctl -u sidecar.service` says why"


@pytest.mark.parametrize(
    ("changes", "severity", "found", "advice"),
    [
        (
            {**FAILED, "ExecMainStatus": "78"},
            Severity.ERROR,
            "sidecar.service is failed (failed): it refused its configuration (exit code 78)",
            f"{JOURNAL}; correct the settings, then `systemctl start sidecar.socket`",
        ),
        (
            {**FAILED, "Result": "oom-kill", "ExecMainStatus": "9"},
            Severity.ERROR,
            "sidecar.service is failed (failed): oom-kill",
            JOURNAL,
        ),
        (
            {"Id": "sidecar.socket", "ActiveState": "inactive", "SubState": "dead"},
            Severity.WARNING,
            "sidecar.socket is inactive (dead): nothing listens for clients",
            "`systemctl enable --now sidecar.socket`",
        ),
        (
            {"NRestarts": "3"},
            Severity.WARNING,
            "sidecar.service is active (running), restarted 3 times since it was started",
            JOURNAL,
        ),
    ],
)
def test_a_unit_that_failed(
    changes: dict[str, str], severity: Severity, found: str, advice: str
) -> None:
    """A failed, stopped or restarted unit is reported with the cause and what to do."""
    (finding,) = check_units(Systemd(252, [{**SERVICE, **changes}]), {})
    assert (finding.severity, finding.found, finding.advice) == (severity, found, advice)


@pytest.mark.parametrize(
    ("changes", "found", "advice"),
    [
        ({"NeedDaemonReload": "yes"}, "sidecar.service has changed on disk", RELOADED),
        ({"ProcSubset": "pid"}, "ProcSubset=pid: /proc/cpuinfo is hidden", "set ProcSubset as"),
        ({"PrivateUsers": "yes"}, "PrivateUsers=yes: all peers but root", "set PrivateUsers as"),
    ],
)
def test_a_unit_with_settings_that_break_a_daemon(
    changes: dict[str, str], found: str, advice: str
) -> None:
    """Unit settings known to break a daemon are a warning, beside the unit's own finding."""
    well, finding = check_units(Systemd(252, [{**SERVICE, **changes}]), {})
    assert (well.severity, finding.severity) == (Severity.OK, Severity.WARNING)
    assert found in finding.found
    assert advice in finding.advice


def test_every_unit_that_is_installed_is_judged() -> None:
    """Every installed unit is judged, also of several daemons on one host; missing ones are not."""
    other = {**SERVICE, "Id": "sidecar@e5.service", "NRestarts": "1"}
    gone = {**SERVICE, "Id": "sidecar@old.service", "LoadState": "not-found"}
    findings = list(check_units(Systemd(252, [SERVICE, gone, other]), {}))
    assert [finding.found.split()[0] for finding in findings] == [
        "sidecar.service", "sidecar@e5.service",
    ]  # fmt: skip
    assert Systemd(252, [gone, other]).installed
    assert not Systemd(252, [gone]).installed


def test_a_newer_systemd_can_do_more() -> None:
    """From systemd 254 on, a service without the drop-in for it is a note."""
    assert severities(254) == severities(255) == [Severity.OK, Severity.NOTE]
    assert severities(253) == [Severity.OK]
    _, finding = check_units(Systemd(254, [SERVICE]), {})
    assert "lacks the drop-in systemd-254.conf, and systemd is 254" in finding.found
    assert severities(254, Id="sidecar.socket") == [Severity.OK]
    path = "/etc/systemd/system/sidecar.service.d/systemd-254.conf"
    assert severities(254, DropInPaths=path) == [Severity.OK]


def test_a_unit_of_another_version_is_noted(tmp_path: Path) -> None:
    """An installed unit that differs from the one shipped with this version is a note."""
    unit = tmp_path / "sidecar.service"
    unit.write_text("[Service]\n")
    systemd = Systemd(252, [{**SERVICE, "FragmentPath": str(unit)}])
    assert len(list(check_units(systemd, {"sidecar.service": "[Service]\n"}))) == 1
    _, finding = check_units(systemd, {"sidecar.service": "[Service]\nType=notify\n"})
    assert finding.severity is Severity.NOTE
    assert finding.found == f"{unit} differs from this version's unit"
    assert "drop-in" in finding.advice
    assert len(list(check_units(systemd, {"sidecar.socket": "[Socket]\n"}))) == 1
    unit.unlink()
    assert len(list(check_units(systemd, {"sidecar.service": "[Service]\nType=notify\n"}))) == 1


def test_the_units_of_this_version_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped services and sockets are read from the installation's data folder."""
    folder = tmp_path / "share" / "sidecar" / "systemd"
    folder.mkdir(parents=True)
    for name in ("sidecar.service", "sidecar@.socket", "other.service"):
        (folder / name).write_text(f"# {name}\n")
    monkeypatch.setattr(sysconfig, "get_path", {"data": str(tmp_path)}.get)
    assert shipped_units() == {
        name: f"# {name}\n" for name in ("sidecar.service", "sidecar@.socket")
    }


def test_a_socket_that_waits_is_known() -> None:
    """A listening socket at exactly this path is recognised, as connecting would start a daemon."""
    listen = {"Id": "sidecar.socket", "Listen": f"{SOCKET} (Stream)"}
    assert Systemd(252, [{**listen, "SubState": "listening"}]).waits_at(SOCKET)
    assert not Systemd(252, [{**listen, "SubState": "running"}]).waits_at(SOCKET)
    assert not Systemd(252, [{**listen, "SubState": "listening"}]).waits_at(Path("/run/other"))
    shorter = SOCKET.with_name("sidecar")
    assert not Systemd(252, [{**listen, "SubState": "listening"}]).waits_at(shorter)
    assert not Systemd(252, [SERVICE]).waits_at(SOCKET)
    several = {"Id": "s", "SubState": "listening", "Listen": f"/other (Stream) {SOCKET}"}
    assert Systemd(252, [SERVICE, several]).waits_at(SOCKET)


def test_the_units_limit() -> None:
    """The memory limit is the smallest of the installed units' limits, in bytes."""
    assert Systemd(252, [SERVICE]).memory_max() is None
    limited = {**SERVICE, "MemoryMax": "1000"}
    assert Systemd(252, [SERVICE, limited]).memory_max() == 1000
    larger = {**SERVICE, "MemoryMax": "2000"}
    assert Systemd(252, [larger, limited, larger]).memory_max() == 1000
    gone = {**limited, "LoadState": "not-found"}
    assert Systemd(252, [gone, larger]).memory_max() == 2000


def test_without_systemd_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemctl, or without systemd's folder under /run, systemd counts as absent."""
    monkeypatch.setattr(shutil, "which", lambda _: sys.executable)
    assert read_systemd(tmp_path) == Systemd(0)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert read_systemd(tmp_path) == Systemd(0)


SHOWN = """\
Id=sidecar.service
LoadState=loaded
Listen=
DropInPaths=/etc/a.conf x=y

Id=sidecar.socket
LoadState=not-found
"""


def test_what_systemd_shows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version and each unit's properties are read, with a timeout of ten seconds."""
    asked: list[tuple[str, ...]] = []
    seconds: list[float] = []
    version = "systemd 254 (254.5-1)\n+PAM"

    def run(command: tuple[str, ...], *, timeout: float, **_: object) -> SimpleNamespace:
        asked.append(command)
        seconds.append(timeout)
        return SimpleNamespace(stdout=version if command[1] == "--version" else SHOWN)

    (tmp_path / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(shutil, "which", {"systemctl": "/bin/systemctl"}.get)
    monkeypatch.setattr(subprocess, "run", run)
    service = {
        "Id": "sidecar.service", "LoadState": "loaded", "Listen": "",
        "DropInPaths": "/etc/a.conf x=y",
    }  # fmt: skip
    socket = {"Id": "sidecar.socket", "LoadState": "not-found"}
    assert read_systemd(tmp_path) == Systemd(254, [service, socket])
    assert asked[0] == ("/bin/systemctl", "--version")
    command, show, *names, properties = asked[1]
    assert (command, show) == ("/bin/systemctl", "show")
    assert names == ["sidecar.service", "sidecar.socket", "sidecar@*.service", "sidecar@*.socket"]
    judged = {
        "Id", "LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts",
        "NeedDaemonReload", "FragmentPath", "DropInPaths", "Listen", "MemoryMax", "ProcSubset",
        "PrivateUsers",
    }  # fmt: skip
    assert properties.startswith("--property=")
    assert judged <= set(properties.removeprefix("--property=").split(","))
    assert seconds == [10.0, 10.0]
    version = "something else"
    assert read_systemd(tmp_path).version == 0
