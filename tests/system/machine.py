"""A container with a real systemd as PID 1, in which Sidecar is installed.

Its root is this host's own, copy-on-write over a tmpfs. All mounts are in a mount namespace that
ends with the container. The container ends with the test, even if that is killed, which leaves
only empty cgroups behind.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
_PATIENCE = 120.0
_BOOT_SECONDS = 30.0
_STOP_SECONDS = 20.0
_CGROUPS = Path("/sys/fs/cgroup")
_TOOLS = ("systemd-nspawn", "unshare", "setpriv", "nsenter", "mount")

# Mounts are private, including /run, where nspawn keeps its state.
_START = """
set -e
echo $$ > "$1/cgroup.procs"
root=$2
shift 2
mount -t tmpfs -o size=512M sidecar "$root"
mkdir "$root/upper" "$root/work" "$root/root"
mount -t overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" overlay "$root/root"
mount -t tmpfs run /run
exec systemd-nspawn --directory="$root/root" "$@"
"""

# Stands in for a virtual environment's bin/sidecar: runs the checkout, whose Python may be in a
# folder that the unit cannot see.
_COMMAND = """#!/bin/sh
export PYTHONHOME=/opt/sidecar/python LD_LIBRARY_PATH=/opt/sidecar/python/lib
export PYTHONPATH=/opt/sidecar/src:/opt/sidecar/site-packages
exec /opt/sidecar/python/bin/{python} {arguments} "$@"
"""


class Machine:
    """Boots on entry and powers off on exit. Skips the test if this host cannot run it."""

    def __init__(self, folder: Path) -> None:
        self._name = f"sidecar-test-{os.getpid()}"
        self._root = folder / "root"
        self._console = folder / "console"
        self._cgroup = _unified() / self._name
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        if reason := _missing():
            pytest.skip(reason)
        self._root.mkdir()
        try:
            self._cgroup.mkdir()
            self._boot()
            _until(self._is_running, "a booted systemd", _BOOT_SECONDS)
        except (OSError, TimeoutError) as error:
            console = self._console.read_text() if self._console.exists() else ""
            self.close()
            pytest.skip(f"no systemd boots in a container here: {error}; {console[-300:]}")
        try:
            self._install()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Power off and clean up."""
        if self._nspawn is not None:
            self._nspawn.terminate()  # makes nspawn shut the container down
            with suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(_STOP_SECONDS)
            for folder in sorted(self._cgroup.rglob("cgroup.procs")):
                for pid in folder.read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            self._nspawn.wait()
        for folder in (self._cgroup, _CGROUPS / "systemd" / self._name):
            _until(lambda folder=folder: _removed(folder), f"an empty cgroup {folder}")

    def run(self, *command: str, check: bool = True, uid: int = 0, gid: int = 0) -> str:
        """Run a command in the container and return its output."""
        done = subprocess.run(
            [*self._enter, f"--setuid={uid}", f"--setgid={gid}", *command],
            capture_output=True, text=True, check=False, timeout=_PATIENCE,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{command} exits {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout.strip()

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.run("systemctl", *words, check=check)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--property", name, "--value", unit)

    def until(self, unit: str, **properties: str) -> None:
        """Wait until the unit has these properties."""

        def reached() -> bool:
            return all(self.show(unit, name) == value for name, value in properties.items())

        _until(reached, f"{unit} with {properties}")

    def events(self, name: str, *matches: str) -> list[dict[str, Any]]:
        """Return the journal entries of an event, with the journal's field names."""
        lines = self.run("journalctl", "--output=json", f"EVENT={name}", *matches, check=False)
        return [json.loads(line) for line in lines.splitlines()]

    def path(self, path: str) -> Path:
        """Return the path of a container's file for this process."""
        return Path(f"/proc/{self._leader}/root{path}")

    @property
    def _enter(self) -> list[str]:
        namespaces = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        return ["nsenter", "-t", str(self._leader), *namespaces]

    def _boot(self) -> None:
        binds = {
            sys.base_prefix: "/opt/sidecar/python",
            sysconfig.get_paths()["purelib"]: "/opt/sidecar/site-packages",
        }
        arguments = [
            "--boot", "--register=no", "--keep-unit", "--quiet", f"--machine={self._name}",
            "--private-network", "--link-journal=no", "--console=pipe",
            *(f"--bind-ro={ours}:{theirs}" for ours, theirs in binds.items()),
            "--", "--unit=basic.target",
        ]  # fmt: skip
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", "unshare", "--mount", "sh", "-c", _START, "sh",
                 str(self._cgroup), str(self._root), *arguments],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )  # fmt: skip

    def _is_running(self) -> bool:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise OSError(f"systemd-nspawn exits {self._nspawn.returncode}")
        for pid in _children(self._nspawn.pid):
            self._leader = pid
        return bool(self._leader) and self.systemctl("is-system-running", check=False) == "running"

    def _install(self) -> None:
        """Install as in the README, but with the checkout's command instead of pip's."""
        sidecar = self.path("/opt/sidecar")
        for package in ("sidecar", "client_lib"):
            shutil.copytree(
                ROOT / package, sidecar / "src" / package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )  # fmt: skip
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for name, arguments in (("sidecar", "-m sidecar"), ("python", "")):
            command = sidecar / "bin" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(_COMMAND.format(python=python, arguments=arguments))
            command.chmod(0o755)
        system = self.path("/etc/systemd/system")
        for pattern in ("*.socket", "*.service", "*.timer"):
            for unit in UNITS.glob(pattern):
                shutil.copy(unit, system)
        if self._version >= 254:
            folder = system / "sidecar.service.d"
            folder.mkdir()
            shutil.copy(UNITS / "drop-ins" / "systemd-254.conf", folder)
        shutil.copy(UNITS / "sidecar.env", self.path("/etc/default/sidecar"))
        shutil.copy(UNITS / "sidecar.sysusers.conf", self.path("/usr/lib/sysusers.d/sidecar.conf"))
        self.run("systemd-sysusers")
        self.systemctl("daemon-reload")

    @property
    def _version(self) -> int:
        return int(self.systemctl("--version").split()[1])


def _missing() -> str | None:
    """Return why no container can run here, as far as that can be checked in advance."""
    if os.geteuid() != 0:
        return "a container with its own systemd needs root"
    if tools := [name for name in _TOOLS if shutil.which(name) is None]:
        return f"not installed: {', '.join(tools)}"
    if not Path("/lib/systemd/systemd").exists():
        return "this host's root has no systemd to boot"
    if not (_unified() / "cgroup.procs").exists():
        return "no cgroup v2 hierarchy"
    return None


def _unified() -> Path:
    """Return the root of cgroup v2, which may be a hierarchy alongside those of v1."""
    beside = _CGROUPS / "unified"
    return beside if beside.is_dir() else _CGROUPS


def _children(pid: int) -> Iterator[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    yield from map(int, text.split())


def _removed(cgroup: Path) -> bool:
    """Remove a cgroup and its children; return False while one still has a process."""
    if not cgroup.is_dir():
        return True
    try:
        for folder in sorted((p for p in cgroup.rglob("*") if p.is_dir()), reverse=True):
            folder.rmdir()
        cgroup.rmdir()
    except OSError:
        return False
    return True


def _until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:g} s")
        time.sleep(0.05)
