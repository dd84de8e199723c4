"""Acts of another user of the host: planting files, listening on a socket. Needs root."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NOBODY = 65534

takes_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

_LISTEN = """
import os, socket, sys
uid, path, channel, listener = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
sock = socket.socket(fileno=listener) if listener else socket.socket(socket.AF_UNIX)
if not listener:
    os.umask(0)
    sock.bind(path)
sock.listen()
socket.send_fds(socket.socket(fileno=channel), [b"x"], [sock.fileno()])
"""


def listener_of(uid: int, path: Path, bound: socket.socket | None = None) -> socket.socket:
    """Return a socket that a process of `uid` listens on: a new one at `path`, or `bound`."""
    ours, theirs = socket.socketpair()
    passed = [theirs.fileno(), *([bound.fileno()] if bound else [])]
    words = map(str, (uid, path, theirs.fileno(), bound.fileno() if bound else 0))
    with ours, theirs, bound or nullcontext():
        subprocess.run([sys.executable, "-c", _LISTEN, *words], pass_fds=passed, check=True)
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=descriptor)


def plant(kind: str, path: Path, outside: Path) -> None:
    """Create a file of `kind` at `path`; links point into `outside`."""
    match kind.removeprefix("another's "):
        case "file":
            path.write_text("planted")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(outside / "precious")
        case "dangling link":
            path.symlink_to(outside / "none")
        case "link to a folder":
            path.symlink_to(outside)
        case "hard link":
            path.hardlink_to(outside / "precious")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))
    if kind.startswith("another's "):
        os.lchown(path, NOBODY, NOBODY)


KINDS = [
    "file", "folder", "link", "dangling link", "link to a folder", "hard link", "fifo", "socket",
    *([f"another's {kind}" for kind in ("file", "folder", "link", "fifo")]
      if os.geteuid() == 0 else []),
]  # fmt: skip


def contents(folder: Path) -> dict[str, Any]:
    """Return inode, mode, owner, mtime and content of everything in `folder`."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        facts = path.lstat()
        held = path.read_bytes() if stat.S_ISREG(facts.st_mode) else None
        found[str(path)] = (facts.st_ino, facts.st_mode, facts.st_uid, facts.st_mtime_ns, held)
    return found


@contextmanager
def no_hang(seconds: int = 30) -> Iterator[None]:
    """Fail if the block takes longer than `seconds`."""

    def fail(*_: object) -> None:
        raise AssertionError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def shared() -> Iterator[tuple[Path, Path]]:
    """Create a world-writable, sticky folder like /tmp, and another one with a precious file."""
    with TemporaryDirectory(prefix="sidecar-shared-") as place:
        folder, outside = Path(place) / "shared", Path(place) / "outside"
        for each in (folder, outside):
            each.mkdir()
        folder.chmod(0o1777)
        (outside / "precious").write_text("precious")
        yield folder, outside
