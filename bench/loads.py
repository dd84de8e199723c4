"""What is asked: texts of mixed lengths, texts of one length, short queries; and by how many."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from bench import texts

Lengths: TypeAlias = Literal["mixed", "uniform", "query"]

CLIENTS = (1, 16, 64)
_WORDS = 64
_QUERY_WORDS = 8
_QUERIES = 32
_ALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """One text a request; each client asks when it has its last answer."""

    lengths: Lengths
    clients: int

    def __str__(self) -> str:
        if self == LONE_QUERY:
            return f"a lone query of {_QUERY_WORDS} words"
        return f"{self.lengths}, {self.clients} client{'s' if self.clients > 1 else ''}"


LONE_QUERY = Load("query", 1)
LOADS = (*(Load(lengths, n) for lengths in get_args(Lengths)[:2] for n in CLIENTS), LONE_QUERY)


def read(path: Path, count: int) -> Mapping[Lengths, Sequence[str]]:
    """Return `count` texts of each kind, fewer queries. None is there twice: equal texts that
    wait together are computed once by the daemon.
    """
    found = texts.read(path, _ALL)
    return {
        "mixed": _distinct(found)[:count],
        "uniform": _distinct(_cut(found, _WORDS))[:count],
        "query": _distinct(_cut(found, _QUERY_WORDS))[:_QUERIES],
    }


def _cut(found: Iterable[str], count: int) -> list[str]:
    """Return the beginnings of those texts that have so many words."""
    words = (text.split(maxsplit=count) for text in found)
    return [" ".join(each[:count]) for each in words if len(each) >= count]


def _distinct(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))
