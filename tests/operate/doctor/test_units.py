"""The units, by the properties that systemd shows of them."""

from pathlib import Path

import pytest

from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.units import Systemd, check_units, read_systemd

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
    """And hosts without systemd, or without the units."""
    assert severities() == [Severity.OK]
    assert [f.severity for f in check_units(Systemd(0), {})] == [Severity.OK]
    assert severities(LoadState="not-found") == [Severity.NOTE]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ActiveState": "failed", "ExecMainStatus": "78"}, "refused its configuration"),
        ({"ActiveState": "failed", "Result": "oom-kill"}, "oom-kill"),
        ({"Id": "sidecar.socket", "ActiveState": "inactive"}, "nobody listens"),
        ({"NRestarts": "3"}, "restarted 3 times"),
        ({"NeedDaemonReload": "yes"}, "changed on disk"),
        ({"ProcSubset": "pid"}, "/proc/cpuinfo is hidden"),
        ({"PrivateUsers": "yes"}, "all peers but root"),
    ],
)
def test_a_unit_that_is_not(changes: dict[str, str], found: str) -> None:
    """How it failed, and the settings that were seen to break a daemon."""
    findings = list(check_units(Systemd(252, [{**SERVICE, **changes}]), {}))
    assert max(finding.severity for finding in findings) >= Severity.WARNING
    assert any(found in finding.found and finding.advice for finding in findings)


def test_a_newer_systemd_can_do_more() -> None:
    """The drop-in for it is asked for where it is missing."""
    assert severities(254) == [Severity.OK, Severity.NOTE]
    path = "/etc/systemd/system/sidecar.service.d/systemd-254.conf"
    assert severities(254, DropInPaths=path) == [Severity.OK]


def test_a_unit_of_another_version_is_noted(tmp_path: Path) -> None:
    """By comparison with the one that was installed with this version."""
    unit = tmp_path / "sidecar.service"
    unit.write_text("[Service]\n")
    systemd = Systemd(252, [{**SERVICE, "FragmentPath": str(unit)}])
    assert len(list(check_units(systemd, {"sidecar.service": "[Service]\n"}))) == 1
    _, finding = check_units(systemd, {"sidecar.service": "[Service]\nType=notify\n"})
    assert finding.severity is Severity.NOTE


def test_a_socket_that_waits_is_known() -> None:
    """Whoever connects to it starts a daemon."""
    listen = {"Id": "sidecar.socket", "Listen": f"{SOCKET} (Stream)"}
    assert Systemd(252, [{**listen, "SubState": "listening"}]).waits_at(SOCKET)
    assert not Systemd(252, [{**listen, "SubState": "running"}]).waits_at(SOCKET)
    assert not Systemd(252, [{**listen, "SubState": "listening"}]).waits_at(Path("/run/other"))


def test_the_units_limit() -> None:
    """The least of them, in bytes."""
    assert Systemd(252, [SERVICE]).memory_max() is None
    limited = {**SERVICE, "MemoryMax": "1000"}
    assert Systemd(252, [SERVICE, limited]).memory_max() == 1000


def test_without_systemd_nothing_is_asked(tmp_path: Path) -> None:
    """Its folder under /run says whether it runs."""
    assert read_systemd(tmp_path) == Systemd(0)
