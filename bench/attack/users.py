"""Who takes part, by number: users that need no entry on the host."""

import os
import resource
from collections.abc import Sequence

HONEST = 1_000
NEIGHBOURS: Sequence[int] = (1_001, 1_002)
ATTACKERS: Sequence[int] = (65_534, 65_533)


def become(uid: int) -> None:
    """Become `uid` in no group but its own, with as many descriptors as it may have; for good."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def need_root() -> None:
    """End the program, and say so, where it cannot become other users."""
    if os.geteuid() != 0:
        raise SystemExit("--attack needs root: attackers and honest clients are different users")
