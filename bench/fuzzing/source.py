"""Choices out of bytes: the same bytes, the same choices; all zeros when they have run out."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Up to these a byte stands for itself, and for a power of two; beyond, for what is largest.
_SMALL, _MIDDLE = 160, 252
_MIDDLE_POWERS, _LARGE_POWERS = 16, 4


class Source:
    """Reads choices from `data`, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def flag(self) -> bool:
        return self.byte() % 2 == 1

    def below(self, most: int) -> int:
        return self.byte() % most

    def choice(self, among: Sequence[T]) -> T:
        return among[self.below(len(among))]

    def literal(self, most: int = 24) -> bytes:
        """Return a few of the bytes themselves, the next of which says how many."""
        count = min(self.below(most + 1), max(0, self.left))
        self._at += count
        return self._data[self._at - count : self._at]

    def length(self) -> int:
        """Return a length: mostly small, now and then as long as a frame."""
        chosen = self.byte()
        if chosen < _SMALL:
            return chosen % 40
        if chosen < _MIDDLE:
            return int(2 ** (chosen % _MIDDLE_POWERS)) + chosen % 3 - 1
        return int(2 ** (20 + chosen % _LARGE_POWERS))
