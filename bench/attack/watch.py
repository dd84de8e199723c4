"""What a daemon is seen to do from outside, by root, during a phase."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_lib import Client

_PING_SECONDS = 0.02
_STATUS_SECONDS = 0.5
_TIMEOUT = 5.0


@dataclass(slots=True)
class Seen:
    """Seconds that pings and statuses took, how many were not answered; descriptors at most."""

    pings: list[float] = field(default_factory=list)
    statuses: list[float] = field(default_factory=list)
    unanswered: int = 0
    descriptors: int = 0


@contextmanager
def watching(path: Path, pid: int) -> Iterator[Seen]:
    """Ask the daemon at `path` while the block runs.

    A ping takes at least as long as the loop is held; `status` comes on a connection of its own.
    """
    seen = Seen()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_over_and_over, args=(each, stop, seconds))
        for each, seconds in (
            (_pinging(path, seen), _PING_SECONDS),
            (lambda: _ask_status(path, seen), _STATUS_SECONDS),
            (lambda: _count_descriptors(pid, seen), _PING_SECONDS),
        )
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def status(path: Path) -> Mapping[str, Any]:
    """Return the daemon's status. Raises what `Client.status` does."""
    with Client(path, timeout=_TIMEOUT) as client:
        return client.status()


def traces_of(status: Mapping[str, Any], uids: set[int]) -> list[str]:
    """Return what is left of these users: connections, memory that is held, rows that wait."""
    named = {f"uid {uid}" for uid in uids}
    queue = {lane: load for lane, load in status["queue"].items() if lane != "bounds"}
    kept = {
        "connections": [f"uid {peer['uid']}" for peer in status["peers"]],
        "memory": _holders(status["memory"]),
        "rows": [peer for load in queue.values() for peer in load["peers"]],
    }
    return [what for what, peers in kept.items() if any(_names(peer, named) for peer in peers)]


def _holders(memory: Mapping[str, Any]) -> list[str]:
    """Return who holds memory, of whatever kind: each kind has a map of its own in the status."""
    kinds = [each for each in (memory, *memory.values()) if isinstance(each, Mapping)]
    return [peer for kind in kinds for peer in kind.get("held_by_peer", ())]


def descriptors(pid: int) -> int:
    """Return how many the process has open; 0 where it has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def peak_rss(pid: int) -> int:
    """Return the most bytes that it has held since `forget_peak`; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _names(peer: str, named: set[str]) -> bool:
    return any(peer.rstrip(")").endswith(name) for name in named)


def _over_and_over(step: Callable[[], None], stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        step()


def _pinging(path: Path, seen: Seen) -> Callable[[], None]:
    client = Client(path, timeout=_TIMEOUT)

    def ping() -> None:
        seen.unanswered += not _timed(client.ping, seen.pings)

    return ping


def _ask_status(path: Path, seen: Seen) -> None:
    seen.unanswered += not _timed(lambda: status(path), seen.statuses)


def _timed(call: Callable[[], Any], times: list[float]) -> bool:
    """Note how long `call` took; return whether it came to an end."""
    begun = time.monotonic()
    try:
        call()
    except Exception:  # noqa: BLE001 - whatever it is, there was no answer
        return False
    times.append(time.monotonic() - begun)
    return True


def _count_descriptors(pid: int, seen: Seen) -> None:
    seen.descriptors = max(seen.descriptors, descriptors(pid))
