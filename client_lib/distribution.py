"""The names of the distributions on the package index, and the command that installs extras."""

DAEMON = "embedding-sidecar"
CLIENT = "embedding-sidecar-client"


def install_command(distribution: str, *extras: str) -> str:
    """Return the command that installs `distribution` with `extras`, for a message."""
    return f"pip install '{distribution}[{','.join(extras)}]'"
