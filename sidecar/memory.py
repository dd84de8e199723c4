"""What this process holds. A leaf."""

import psutil


def read_memory() -> dict[str, int]:
    """Return `rss_bytes`, and `pss_bytes`: its part of what it shares with other processes.

    The kernel walks the whole address space for it: milliseconds.
    """
    memory = psutil.Process().memory_full_info()
    return {"rss_bytes": memory.rss, "pss_bytes": memory.pss}
