"""What the process keeps of memory: code and models for good, what a reload left not at all.

And how much that is, said as it moves.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

import psutil

from sidecar.events import log
from sidecar.memory import read_memory

_LOOK_SECONDS = 60.0
_MOVED = 0.01


def settle() -> None:
    """Free what nobody holds any more, and let no later collection walk through the rest.

    What serves now stays: code, models, the engine. Takes tens of milliseconds, on any thread.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return what the heap holds free to the system; glibc does so by itself only at its end."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


async def tell_moves(
    read: Callable[[], Mapping[str, int]] = read_memory, look_seconds: float = _LOOK_SECONDS
) -> NoReturn:
    """Say what the process holds whenever it has moved by a hundredth since it was said last.

    A daemon that idles for months says nothing; one that grows says how, until cancelled.
    """
    told = 0
    while True:
        await asyncio.sleep(look_seconds)
        # No descriptor or thread may be left to look with: then the next look tells.
        with suppress(OSError, RuntimeError, psutil.Error):
            memory = await asyncio.to_thread(read)
            if abs(memory["pss_bytes"] - told) > told * _MOVED:
                told = memory["pss_bytes"]
                log.info("server.memory", **memory)
