"""What this process holds, and how soon it lets go. A leaf."""

import ctypes

import psutil

_M_MMAP_THRESHOLD = -3  # mallopt(3)
_LARGE_BYTES = 256 * 1024


def read_memory() -> dict[str, int]:
    """Return `rss_bytes`, and `pss_bytes`: its part of what it shares with other processes.

    The kernel walks the whole address space for it: milliseconds.
    """
    memory = psutil.Process().memory_full_info()
    return {"rss_bytes": memory.rss, "pss_bytes": memory.pss}


def let_go() -> None:
    """Give back to the system what has been freed.

    glibc does so by itself with what is free at the heap's end alone.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # not every libc has it
        trim(0)


def let_go_early() -> None:
    """Have large arrays go back to the system when they are freed, from here on.

    glibc raises the size from which it does that by what it sees freed, up to 32 MiB; what is
    smaller stays with the process, in pieces. This is for one that comes and goes with arrays of
    many sizes: asking the system each time is slower.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # not every libc has it
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
