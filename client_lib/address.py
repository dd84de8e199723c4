"""Where the daemon listens by default. Both sides use this rule."""

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_SOCKET = Path("/run/sidecar/sidecar.sock")
LONGEST_PATH = 107
"""The longest path of a Unix socket, in bytes: what `sun_path` of unix(7) holds."""


def default_socket(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$SIDECAR_SOCKET`, or the socket in the user's runtime directory, or the host's."""
    if chosen := environ.get("SIDECAR_SOCKET"):
        return Path(chosen)
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "sidecar" / "sidecar.sock"
    return SYSTEM_SOCKET


def too_long(path: str | os.PathLike[str]) -> str | None:
    """Return what is wrong with the length of a socket's path, or None."""
    length = len(os.fsencode(path))
    if length <= LONGEST_PATH:
        return None
    return f"its path has {length} bytes, but a socket's path may have at most {LONGEST_PATH}"
