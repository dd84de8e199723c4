"""This process's memory: how much it holds, and returning it to the system. A leaf module."""

import ctypes

import psutil

_M_MMAP_THRESHOLD = -3  # mallopt(3)
_LARGE_BYTES = 256 * 1024


def read_memory() -> dict[str, int]:
    """Return `rss_bytes` and `pss_bytes`, which counts its proportional share of shared pages.

    Takes milliseconds: the kernel walks the whole address space.
    """
    memory = psutil.Process().memory_full_info()
    return {"rss_bytes": memory.rss, "pss_bytes": memory.pss}


def let_go() -> None:
    """Return freed memory to the system.

    On its own, glibc returns only what is free at the end of the heap.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc only
        trim(0)


def let_go_early() -> None:
    """From now on, return large arrays to the system as soon as they are freed.

    glibc raises its mmap threshold with the sizes it sees freed, up to 32 MiB; smaller blocks
    then stay in a fragmented heap. Use this in short-lived processes that allocate arrays of many
    sizes: a system call per allocation is slower.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc only
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
