"""What systemd reports about the units, if it runs and they are installed."""

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.operate.doctor.finding import Finding, error, note, ok, warning

_SECONDS = 10.0
_NAMES = ("sidecar.service", "sidecar.socket", "sidecar@*.service", "sidecar@*.socket")
_PROPERTIES = (
    "Id", "LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts",
    "NeedDaemonReload", "FragmentPath", "DropInPaths", "Listen", "MemoryMax", "ProcSubset",
    "PrivateUsers", "StartLimitIntervalUSec",
)  # fmt: skip
_BAD_CONFIGURATION = "78"
_STEPS_SINCE = 254
# Settings known to break a daemon, and what happens with them.
_TRAPS = {
    ("ProcSubset", "pid"): "/proc/cpuinfo is hidden: the slowest arithmetic is used",
    ("PrivateUsers", "yes"): "all peers but root look like one user, so allow-lists refuse them",
}


@dataclass(frozen=True, slots=True)
class Systemd:
    """The version of the running systemd, 0 if there is none, and each unit's properties."""

    version: int
    units: Sequence[Mapping[str, str]] = ()

    @property
    def installed(self) -> bool:
        """Whether any Sidecar unit is installed."""
        return any(map(_loaded, self.units))

    def waits_at(self, socket: Path) -> bool:
        """Whether systemd listens at `socket` for a daemon that is not running yet.

        Connecting would start it.
        """
        return any(
            unit.get("SubState") == "listening" and f"{socket} " in f"{unit.get('Listen')} "
            for unit in self.units
        )

    def memory_max(self) -> int | None:
        """Return the service's memory limit in bytes; None if there is none."""
        limits = [unit.get("MemoryMax", "") for unit in self.units if _loaded(unit)]
        return min((int(limit) for limit in limits if limit.isdecimal()), default=None)


def read_systemd(root: Path = Path("/")) -> Systemd:
    """Return what systemd reports, if it runs here."""
    command = shutil.which("systemctl")
    if command is None or not (root / "run/systemd/system").is_dir():
        return Systemd(0)
    version = re.search(r"systemd (\d+)", _run(command, "--version"))
    shown = _run(command, "show", *_NAMES, f"--property={','.join(_PROPERTIES)}")
    blocks = [block.splitlines() for block in shown.strip().split("\n\n")]
    units = [dict(line.partition("=")[::2] for line in block) for block in blocks]
    return Systemd(int(version[1]) if version else 0, units)


def check_units(systemd: Systemd, shipped: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the installed units are sound; `shipped` has this version's, name to text."""
    if not systemd.version:
        yield ok("units", "systemd does not run here")
        return
    units = [unit for unit in systemd.units if _loaded(unit)]
    if not units:
        advice = "see docs/operations.md for how to install them"
        yield note("units", f"systemd {systemd.version}, no Sidecar unit installed", advice)
    for unit in units:
        yield from _check_unit(unit, systemd.version, shipped)


def shipped_units() -> dict[str, str]:
    """Return the units shipped with this installation, name to text."""
    folder = Path(sysconfig.get_path("data")) / "share/sidecar/systemd"
    return {path.name: path.read_text() for path in folder.glob("sidecar*.s*")}


def _check_unit(
    unit: Mapping[str, str], version: int, shipped: Mapping[str, str]
) -> Iterator[Finding]:
    name = unit["Id"]
    state = f"{name} is {unit.get('ActiveState')} ({unit.get('SubState')})"
    journal = f"`journalctl -u {name}` says why"
    if unit.get("ActiveState") == "failed" and unit.get("ExecMainStatus") == _BAD_CONFIGURATION:
        socket = name.replace(".service", ".socket")
        advice = f"{journal}; correct the settings, then `systemctl start {socket}`"
        yield error("units", f"{state}: it refused its configuration (exit code 78)", advice)
    elif unit.get("ActiveState") == "failed":
        yield error("units", f"{state}: {unit.get('Result')}", journal)
    elif name.endswith(".socket") and unit.get("ActiveState") == "inactive":
        found = f"{state}: nothing listens for clients"
        yield warning("units", found, f"`systemctl enable --now {name}`")
    elif unit.get("NRestarts", "0") not in {"", "0"}:
        found = f"{state}, restarted {unit['NRestarts']} times since it was started"
        yield warning("units", found, journal)
    else:
        yield ok("units", f"{state}, systemd {version}")
    if unit.get("NeedDaemonReload") == "yes":
        yield warning("units", f"{name} has changed on disk", "`systemctl daemon-reload`")
    for (setting, value), consequence in _TRAPS.items():
        if unit.get(setting) == value:
            advice = f"set {setting} as in the unit that Sidecar ships"
            yield warning("units", f"{name} has {setting}={value}: {consequence}", advice)
    yield from _check_files(unit, version, shipped)


def _check_files(
    unit: Mapping[str, str], version: int, shipped: Mapping[str, str]
) -> Iterator[Finding]:
    name, fragment = unit["Id"], Path(unit.get("FragmentPath", ""))
    ours = shipped.get(fragment.name)
    if ours is not None and fragment.is_file() and fragment.read_text() != ours:
        found = f"{fragment} differs from this version's unit"
        yield note("units", found, "copy it again; your own changes belong in a drop-in")
    steps = name.endswith(".service") and version >= _STEPS_SINCE
    if steps and "254" not in unit.get("DropInPaths", ""):
        found = f"{name} lacks the drop-in systemd-254.conf, and systemd is {version}"
        yield note("units", found, "with it, restarts slow down on a broken host")


def _loaded(unit: Mapping[str, str]) -> bool:
    return unit.get("LoadState") == "loaded"


def _run(*command: str) -> str:
    done = subprocess.run(  # noqa: S603 - systemctl, which only shows
        command, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    return done.stdout
