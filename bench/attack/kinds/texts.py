"""Texts that take as long to tokenize and compute as texts can."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from bench.attack.kinds.attack import Attack
from bench.attack.target import LONG, Run, Target, framed, over_and_over, read_frame
from client_lib.wire.codec import encode
from client_lib.wire.frames import HEADER_BYTES

_INPUTS = 2_048
_WORDS = ("copper", "museum", "passport", "opera", "bread", "yeast", "conducts", "steel")
_ZALGO = "z" + "".join(map(chr, range(0x300, 0x330)))
_SECONDS = 120.0  # for which an answer is waited for: it is due
# As `Client.encode` asks for a corpus.
_CORPUS_TEXTS, _CORPUS_WINDOW = 256, 4


def _asks(make: Callable[[Target, int], bytes], window: int = 1) -> Run:
    """Return an attack that has `window` requests open: its user takes the share that is its own.

    `make` returns the frame of a request by its id.
    """

    def step(target: Target) -> None:
        with target.connected() as sock:
            sock.settimeout(_SECONDS)
            read_frame(sock)  # hello's
            for number in itertools.count(1):
                target.did()
                sock.sendall(make(target, number))
                if number >= window:
                    read_frame(sock)

    return over_and_over(step)


def _embed(number: int, texts: list[str], **fields: Any) -> bytes:
    return encode({"op": "embed", "id": number, "input": texts, **fields})


def _words(target: Target, count: int) -> str:
    """Return `count` words after a number: equal texts would be computed once."""
    return f"{target.chance.random()} {' '.join(target.chance.choices(_WORDS, k=count))}"


def _most(target: Target, number: int) -> bytes:
    """As many texts as a request may have, each as long as the model takes."""
    return _embed(number, [_words(target, 100) for _ in range(_INPUTS)])


def _longest(target: Target, number: int) -> bytes:
    """As many texts as a request may have, together as long as a frame may be."""
    rest = "copper " * 1_000
    return _embed(number, [f"{target.chance.random()} {rest}" for _ in range(_INPUTS)])


def _one(text: str) -> Run:
    """Return an attack that asks for the one text `text`, with something before it."""
    return _asks(lambda target, number: _embed(number, [f"{target.chance.random()}{text}"]))


def _surrogates(_: Target, number: int) -> bytes:
    head = encode({"op": "embed", "id": number})[HEADER_BYTES + 1 :]
    text = b"\xed\xa0\x80" * (LONG // 3)  # half a surrogate pair, and again
    string = b"\xdb" + len(text).to_bytes(4, "big") + text
    return framed(b"\x83" + head + b"\xa5input\x91" + string)


def _long_query(target: Target, number: int) -> bytes:
    query = f"{target.chance.random()} " + "query " * (LONG // 6)
    documents = [_words(target, 5) for _ in range(8)]
    return encode({"op": "rerank", "id": number, "query": query, "documents": documents})


def _corpus(target: Target, number: int) -> bytes:
    chance = target.chance
    texts = [_words(target, chance.randint(1, 90)) for _ in range(_CORPUS_TEXTS)]
    return _embed(number, texts, priority="bulk" if chance.random() < 0.5 else "interactive")


NEIGHBOURS = Attack("requests", _asks(_corpus, _CORPUS_WINDOW), processes=1, computes=True)
"""No attack: each embeds a corpus as `Client.encode` does, for as long as it is there."""
ATTACKS: Mapping[str, Attack] = {
    "as much as there may be": Attack("requests", _asks(_most, window=8), computes=True),
    "the same, 2 users": Attack("requests", _asks(_most, window=8), users=2, computes=True),
    "the longest texts": Attack("requests of 14 MB", _asks(_longest), computes=True),
    "a text of 15 MiB without a space": Attack("requests", _one("x" * LONG), computes=True),
    "a text of 15 MiB of marks": Attack(
        "requests", _one(_ZALGO * (LONG // len(_ZALGO.encode()))), computes=True
    ),
    "15 MiB of half surrogates": Attack("frames", _asks(_surrogates), computes=True),
    "a query of 15 MiB": Attack("requests", _asks(_long_query), computes=True),
}
