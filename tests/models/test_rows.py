"""What identifies a row, and how its length is capped."""

import numpy as np

from sidecar.models.rows import Row, capped


def row(ids: list[int], types: list[int], *, truncated: bool = False) -> Row:
    return Row(np.array(ids, np.int64), np.array(types, np.int64), truncated=truncated)


def test_a_digest_is_that_of_ids_and_types() -> None:
    """Rows that differ in ids or types have different digests, so they never share a result."""
    rows = [
        row([1, 2], [0, 0]), row([1, 2], [0, 1]), row([1, 2], [1, 0]), row([2, 1], [0, 0]),
        row([1], [0]), row([1, 2, 0], [0, 0, 0]), row([], []),
    ]  # fmt: skip
    assert len({each.digest for each in rows}) == len(rows)
    assert row([1, 2], [0, 1]).digest == row([1, 2], [0, 1], truncated=True).digest
    assert {len(each.digest) for each in rows} == {32}


def test_a_cap_is_no_more_than_the_limit() -> None:
    """A cap never exceeds the limit, and 0 stands for no cap."""
    assert [capped(256, cap) for cap in (0, 1, 255, 256, 257)] == [256, 1, 255, 256, 256]
