"""What is said of the process's memory while it serves."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
import structlog

from sidecar.serving.process import heap
from sidecar.serving.process.heap import freeze, report_changes


async def told(*readings: int | Exception) -> list[int]:
    """Return what is told of these readings, each at one look."""
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
        telling = asyncio.create_task(report_changes(read, look_seconds=0))
        await asyncio.wait_for(end.wait(), 30)
        telling.cancel()
        await asyncio.wait([telling])
    assert all(each["event"] == "server.memory" for each in events)
    assert all(each["rss_bytes"] == 2 * each["pss_bytes"] for each in events)
    return [each["pss_bytes"] for each in events]


class Loop:
    """What refers to itself, so that only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """Leave nothing frozen behind."""
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("unfrozen")
def test_what_serves_no_more_is_freed() -> None:
    """Though it was kept for good when it began to serve; what serves now is walked no more."""
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
    """To the system, too; nothing is told where nobody can look."""
    order: list[str] = []
    monkeypatch.setattr(heap, "let_go", lambda: order.append("let go"))
    monkeypatch.setattr(heap, "read_memory", lambda: {"rss_bytes": len(order)})
    assert await heap.trim() == {"rss_bytes": 1}

    def fail() -> None:
        raise OSError(24, "too many")

    monkeypatch.setattr(heap, "read_memory", fail)
    assert await heap.trim() == {}


async def test_memory_is_told_when_it_moves() -> None:
    """Up or down by more than a hundredth of what was told last, however slowly."""
    assert await told(1_000, 1_005, 1_010, 1_011, 1_000, 1_000, 2_000) == [
        1_000,
        1_011,
        1_000,
        2_000,
    ]


async def test_a_process_that_idles_says_nothing() -> None:
    """After the first time."""
    assert await told(*[1_000] * 20) == [1_000]


async def test_a_look_that_fails_harms_nothing() -> None:
    """No descriptor, no thread: the next look tells."""
    assert await told(OSError(24, "too many"), RuntimeError("no thread"), 1_000) == [1_000]
