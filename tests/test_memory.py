"""Measuring a process's memory, and returning it to the system."""

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sidecar.memory import let_go, let_go_early, read_memory


def test_memory_is_this_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """`read_memory` returns RSS and PSS of this process, in bytes."""
    held = read_memory()
    rollup = Path("/proc/self/smaps_rollup").read_text().split()
    assert 0 < held["pss_bytes"] <= held["rss_bytes"]
    assert held["pss_bytes"] == pytest.approx(1024 * int(rollup[rollup.index("Pss:") + 1]), rel=0.2)

    def process(pid: int = os.getpid()) -> SimpleNamespace:
        assert pid == os.getpid()
        return SimpleNamespace(memory_full_info=lambda: SimpleNamespace(rss=7, pss=3, uss=2))

    monkeypatch.setattr(psutil, "Process", process)
    assert read_memory() == {"rss_bytes": 7, "pss_bytes": 3}


def test_what_is_freed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed memory is trimmed, and arrays of 256 KiB and more are returned at once (mallopt(3))."""
    asked: list[tuple[object, ...]] = []
    libc = SimpleNamespace(
        malloc_trim=lambda *words: asked.append(("malloc_trim", *words)),
        mallopt=lambda *words: asked.append(("mallopt", *words)),
    )
    monkeypatch.setattr(ctypes, "CDLL", {None: libc}.__getitem__)
    let_go()
    let_go_early()
    assert asked == [("malloc_trim", 0), ("mallopt", -3, 262_144)]
    monkeypatch.setattr(ctypes, "CDLL", {None: SimpleNamespace()}.__getitem__)
    let_go()
    let_go_early()
