"""The process's limit on open files, and the part of it for connections."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.serving.process import descriptors


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The soft and hard limits that a faked kernel reports."""
    now = [1_024, 4_096]

    def change(_: int, to: tuple[int, int]) -> None:
        now[:] = to

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", change)
    return now


NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1_024, 4_096], [4_096, 4_096]),
        ([1_024, 65_536], [65_536, 65_536]),
        ([1_024, 2**20], [65_536, 2**20]),
        ([1_024, NONE], [65_536, NONE]),
        ([4_096, 4_096], [4_096, 4_096]),
        ([100_000, 2**20], [100_000, 2**20]),  # never lowered
        ([NONE, NONE], [NONE, NONE]),
    ],
)
def test_the_limit_is_raised_as_far_as_is_allowed(
    limits: list[int], before: list[int], after: list[int]
) -> None:
    """The soft limit is raised to the hard one, up to 65,536, and never lowered."""
    limits[:] = before
    descriptors.raise_limit()
    assert limits == after


@pytest.mark.parametrize(("soft", "most"), [(4_096, 4_096), (2**20, 65_536), (NONE, 65_536)])
def test_connections_have_what_nothing_else_needs(limits: list[int], soft: int, most: int) -> None:
    """Connections get all descriptors but open ones, a reload's, and those for operators."""
    limits[0] = soft
    alone = descriptors.for_connections(0)
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    try:
        assert descriptors.for_connections(0) == alone - 20
    finally:
        for each in opened:
            os.close(each)
    assert descriptors.for_connections(8) == alone - 8
    now_open = sum(1 for _ in Path("/proc/self/fd").iterdir())
    assert most - now_open - 130 <= alone <= most - now_open - 126


def test_a_few_connections_there_are_always(limits: list[int]) -> None:
    """A minimum of connections is allowed however few files the process may open."""
    limits[0] = 64
    assert descriptors.for_connections(8) == 16
