"""File descriptors: raise the limit, and work out how many are left for connections."""

import resource
from pathlib import Path

# More would only make the kernel's table larger.
_ENOUGH = 65_536
# For what a reload opens, the files in /proc that a status reads, and a preparation's pipes.
_SPARE = 128
_LEAST_CONNECTIONS = 16


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard limit, but to no more than 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def for_connections(kept: int) -> int:
    """Return how many connections fit beside the files already open and `kept` more."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if soft == resource.RLIM_INFINITY else min(soft, _ENOUGH)
    return max(_LEAST_CONNECTIONS, most - _open() - _SPARE - kept)


def _open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
