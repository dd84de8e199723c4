"""The process's memory: freeze what stays, free what a reload leaves behind, log changes."""

import asyncio
import gc
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

import psutil

from sidecar.events import log
from sidecar.memory import let_go, read_memory

_LOOK_SECONDS = 60.0
_MIN_CHANGE = 0.01
# Reading takes a descriptor and a thread; none may be left.
_READ_ERRORS = (OSError, RuntimeError, psutil.Error)


def freeze() -> None:
    """Collect garbage, and exclude all that remains from later collections.

    What remains (code, models, the engine) is long-lived. Takes tens of milliseconds, on any
    thread.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def trim() -> Mapping[str, int]:
    """Collect garbage, return free memory to the system, and return what is in use, in bytes.

    The result is empty if no descriptor or thread is left to read it with.
    """
    freeze()
    try:
        return await asyncio.to_thread(_give_back)
    except _READ_ERRORS:
        return {}


def _give_back() -> Mapping[str, int]:
    let_go()
    return read_memory()


async def report_changes(
    read: Callable[[], Mapping[str, int]] = read_memory, look_seconds: float = _LOOK_SECONDS
) -> NoReturn:
    """Log the memory in use whenever it has changed by over 1 % since last logged.

    Runs until cancelled. A daemon that idles for months logs nothing; one that grows shows how.
    """
    reported = 0
    while True:
        await asyncio.sleep(look_seconds)
        with suppress(*_READ_ERRORS):  # try again next time
            memory = await asyncio.to_thread(read)
            if abs(memory["pss_bytes"] - reported) > reported * _MIN_CHANGE:
                reported = memory["pss_bytes"]
                log.info("server.memory", **memory)
