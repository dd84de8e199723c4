"""Freeing the process's memory, and logging how it changes."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
import structlog

from sidecar.serving.process import heap
from sidecar.serving.process.heap import freeze, report_changes


async def logged(*readings: int | Exception) -> list[int]:
    """Return the PSS values that are logged for a series of readings."""
    left, end = list(readings), asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> dict[str, int]:
        if not left:
            loop.call_soon_threadsafe(end.set)
            raise OSError
        reading = left.pop(0)
        if isinstance(reading, Exception):
            raise reading
        return {"rss_bytes": 2 * reading, "pss_bytes": reading}

    with structlog.testing.capture_logs() as events:
        reporting = asyncio.create_task(report_changes(read, look_seconds=0))
        await asyncio.wait_for(end.wait(), 30)
        reporting.cancel()
        await asyncio.wait([reporting])
    assert all(each["event"] == "server.memory" for each in events)
    assert all(each["rss_bytes"] == 2 * each["pss_bytes"] for each in events)
    return [each["pss_bytes"] for each in events]


class Loop:
    """An object that refers to itself, so that only garbage collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """Unfreeze all objects after the test."""
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("unfrozen")
def test_what_serves_no_more_is_freed() -> None:
    """`freeze` exempts live objects from collection, but frees those of an earlier `freeze`."""
    serving = Loop()
    left = weakref.ref(serving)
    freeze()
    assert left() is serving
    assert gc.get_freeze_count() > 0
    del serving
    gc.collect()
    freeze()
    assert left() is None


@pytest.mark.slow
@pytest.mark.usefixtures("unfrozen")
async def test_what_is_held_is_told_after_all_was_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`trim` reads memory after returning it to the system, and returns {} if it cannot."""
    order: list[str] = []
    monkeypatch.setattr(heap, "let_go", lambda: order.append("let go"))
    monkeypatch.setattr(heap, "read_memory", lambda: {"rss_bytes": len(order)})
    assert await heap.trim() == {"rss_bytes": 1}

    def fail() -> None:
        raise OSError(24, "too many")

    monkeypatch.setattr(heap, "read_memory", fail)
    assert await heap.trim() == {}


async def test_memory_is_told_when_it_moves() -> None:
    """Memory is logged when it has changed by over 1 % since last logged, however slowly."""
    assert await logged(1_000, 1_005, 1_010, 1_011, 1_000, 1_000, 2_000) == [
        1_000,
        1_011,
        1_000,
        2_000,
    ]


async def test_a_process_that_idles_says_nothing() -> None:
    """After its first line, an idle process logs no more memory."""
    assert await logged(*[1_000] * 20) == [1_000]


async def test_a_look_that_fails_harms_nothing() -> None:
    """A failed reading is skipped, and the next one is logged."""
    assert await logged(OSError(24, "too many"), RuntimeError("no thread"), 1_000) == [1_000]
