"""What one peer does, made of any bytes. Pure.

A mutation of the bytes is one of what the peer does: another field, another length, another end.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from bench.fuzzing import frames
from bench.fuzzing.source import Source

_MOST_STEPS = 40
_MOST_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes that are sent at once."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Wait until something has come, a moment at most."""


@dataclass(frozen=True, slots=True)
class Postprocess:
    """No more is sent; answers are read to the end."""


Step: TypeAlias = Send | Read | Postprocess


def script(data: bytes) -> list[Step]:
    """Return the steps of the peer that `data` stands for; after the last of them it hangs up."""
    source = Source(data)
    steps: list[Step] = []
    if source.below(16) != 15:  # else it does not know its manners
        steps.append(Send(frames.hello()))
    sent = 0
    for step in _steps(source):
        sent += len(step.data) if isinstance(step, Send) else 0
        if sent > _MOST_BYTES:
            break
        steps.append(step)
    return steps


def sent_bytes(steps: Iterable[Step]) -> int:
    """Return how much the peer sends, if it gets to its end."""
    return sum(len(step.data) for step in steps if isinstance(step, Send))


def _steps(source: Source) -> Iterator[Step]:
    number = 0
    for _ in range(_MOST_STEPS):
        if source.left <= 0:
            return
        kind = source.below(16)
        if kind == 15:
            yield Postprocess()
            return
        if kind == 14:
            yield Read()
            continue
        number += 1
        yield from _sent(source, frames.frame(source, number), in_pieces=kind >= 12)


def _sent(source: Source, frame: bytes, *, in_pieces: bool) -> Iterator[Step]:
    if not in_pieces:
        yield Send(frame)
        return
    cut = min(len(frame), source.byte() * len(frame) // 255)
    yield Send(frame[:cut])
    yield Read()
    yield Send(frame[cut:])
