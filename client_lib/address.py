"""Where the daemon listens, unless told otherwise. One rule for both sides."""

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_SOCKET = Path("/run/sidecar/sidecar.sock")


def default_socket(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$SIDECAR_SOCKET`, else the user's runtime directory's socket, else the host's."""
    if chosen := environ.get("SIDECAR_SOCKET"):
        return Path(chosen)
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "sidecar" / "sidecar.sock"
    return SYSTEM_SOCKET
