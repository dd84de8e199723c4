"""What the process keeps of memory: code and models for good, what a reload left not at all.

And how much that is, said as it moves.
"""

import asyncio
import gc
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

import psutil

from sidecar.events import log
from sidecar.memory import let_go, read_memory

_LOOK_SECONDS = 60.0
_MOVED = 0.01
# No descriptor or thread may be left to look with.
_CANNOT_LOOK = (OSError, RuntimeError, psutil.Error)


def freeze() -> None:
    """Free what nobody holds any more, and let no later collection walk through the rest.

    What serves now stays: code, models, the engine. Takes tens of milliseconds, on any thread.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def trim() -> Mapping[str, int]:
    """Free what nobody holds any more, down to the system, and return what is held now, in bytes.

    That is empty where no descriptor or thread is left to look with.
    """
    freeze()
    try:
        return await asyncio.to_thread(_give_back)
    except _CANNOT_LOOK:
        return {}


def _give_back() -> Mapping[str, int]:
    let_go()
    return read_memory()


async def report_changes(
    read: Callable[[], Mapping[str, int]] = read_memory, look_seconds: float = _LOOK_SECONDS
) -> NoReturn:
    """Say what the process holds whenever it has moved by a hundredth since it was said last.

    A daemon that idles for months says nothing; one that grows says how, until cancelled.
    """
    told = 0
    while True:
        await asyncio.sleep(look_seconds)
        with suppress(*_CANNOT_LOOK):  # the next look tells
            memory = await asyncio.to_thread(read)
            if abs(memory["pss_bytes"] - told) > told * _MOVED:
                told = memory["pss_bytes"]
                log.info("server.memory", **memory)
