"""What is said of the process's memory while it serves."""

import asyncio

import structlog

from sidecar.serving.memory import tell_moves


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
        telling = asyncio.create_task(tell_moves(read, look_seconds=0))
        await asyncio.wait_for(end.wait(), 30)
        telling.cancel()
        await asyncio.wait([telling])
    assert all(each["event"] == "server.memory" for each in events)
    assert all(each["rss_bytes"] == 2 * each["pss_bytes"] for each in events)
    return [each["pss_bytes"] for each in events]


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
