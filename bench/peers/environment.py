"""A peer's environment: a folder with a Python of its own, and what was installed into it."""

import os
import subprocess
import sys
from pathlib import Path

from bench.peers.peer import Peer

_INSTALLED = "installed.txt"  # what an installation that came to its end was asked for


def python_of(peer: Peer, place: Path) -> Path | None:
    """Return the Python of the peer's environment in `place`, if it has all that it needs."""
    folder = place.absolute() / peer.name
    note = folder / _INSTALLED
    if not note.is_file() or note.read_text("utf-8") != _asked(peer):
        return None
    return folder / "bin" / "python"


def install(peer: Peer, place: Path) -> None:
    """Make the peer's environment in `place`. Raises `CalledProcessError` where pip fails."""
    folder = place.absolute() / peer.name
    (folder / _INSTALLED).unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", *peer.requirements]
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(command, check=True, stdout=sys.stderr, env=environ)
    (folder / _INSTALLED).write_text(_asked(peer), "utf-8")


def command_for(peer: Peer, place: Path | None) -> str:
    """Return the command that installs the peer."""
    return f"python -m bench peers install {peer.name} --into {place or 'DIR'}"


def _asked(peer: Peer) -> str:
    return "".join(f"{each}\n" for each in peer.requirements)
