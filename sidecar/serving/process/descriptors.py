"""File descriptors: as many as the process may have, and how many of them are for connections."""

import resource
from pathlib import Path

# More would do nothing but make the kernel's table larger.
_ENOUGH = 65_536
# What a reload opens, what a status reads from /proc, a preparation's pipes.
_SPARE = 128
_LEAST_CONNECTIONS = 16


def raise_limit() -> None:
    """Let this process open as many files as its hard limit allows, up to what is ever enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def for_connections(kept: int) -> int:
    """Return how many connections there may be, besides `kept` more: what is open stays open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if soft == resource.RLIM_INFINITY else min(soft, _ENOUGH)
    return max(_LEAST_CONNECTIONS, most - _open() - _SPARE - kept)


def _open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
