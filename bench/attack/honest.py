"""Honest clients: `python -m bench.attack.honest PATH SUBJECT SEED RATE`.

Each is a process of one user, asks for one text `RATE` times a second, and compares its vector.
A request's time counts from the moment at which it was due: one that has to wait for the answer
to the one before it has waited. It prints what came of them at the end of its stdin, as JSON.
"""

import json
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from bench.attack.users import HONEST, become
from bench.children import last_words
from client_lib import Client

_TIMEOUT = 10.0  # a request that takes longer is lost
_REQUESTS_A_CONNECTION = 10  # programs come and go, and so do their connections
_STOP_SECONDS = 60.0


@dataclass(slots=True)
class Asked:
    """Requests by when they were due (monotonic clock): seconds taken, error, wrong vector."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)

    def settle(self, due: float, now: float, vector: bytes, expected: bytes) -> None:
        """Count an answer that came `now`."""
        self.answered.append((due, now - due))
        if vector != expected:
            self.wrong.append(due)

    def during(self, phases: Sequence[tuple[float, float]]) -> "Asked":
        """Return those that were due in one of `phases`, from when to when."""

        def within(due: float) -> bool:
            return any(begun <= due < ended for begun, ended in phases)

        return Asked(
            [each for each in self.answered if within(each[0])],
            [each for each in self.lost if within(each[0])],
            [due for due in self.wrong if within(due)],
        )

    def add(self, other: "Asked") -> None:
        self.answered += other.answered
        self.lost += other.lost
        self.wrong += other.wrong


class Honest:
    """`clients` processes that ask while it is entered; afterwards `asked` has all of it."""

    def __init__(self, path: Path, pairs: Path, *, clients: int, rate: float, seed: int) -> None:
        self.asked = Asked()
        self._processes = [
            subprocess.Popen(
                [
                    sys.executable, "-m", "bench.attack.honest",
                    str(path), str(pairs), f"{seed} {index}", str(rate),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for index in range(clients)
        ]  # fmt: skip

    def __enter__(self) -> Self:
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()  # its first answer
        return self

    def __exit__(self, *_: object) -> None:
        for asked in last_words(self._processes, _STOP_SECONDS):
            self.asked.add(Asked(**asked))


def write_pairs(pairs: Path, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
    """Leave texts and their vectors for the clients."""
    pairs.write_bytes(pickle.dumps((list(texts), list(vectors))))


class _Client:
    def __init__(self, path: str, pairs: str, seed: str, rate: str) -> None:
        self._path = path
        self._texts, self._vectors = pickle.loads(Path(pairs).read_bytes())
        self._chance = random.Random(seed)
        self._period = 1 / float(rate)
        self._asked = Asked()
        self._client = Client(path, timeout=_TIMEOUT)

    def run(self, stop: threading.Event) -> Asked:
        self._ask(time.monotonic())
        print(flush=True)
        self._asked = Asked()
        due = time.monotonic() + self._chance.random() * self._period
        number = 0
        while not stop.wait(max(0.0, due - time.monotonic())):
            self._ask(due)
            due += self._period
            number += 1
            if number % _REQUESTS_A_CONNECTION == 0:
                self._connect_anew()
        return self._asked

    def _ask(self, due: float) -> None:
        pick = self._chance.randrange(len(self._texts))
        try:
            (vector,) = self._client.embed([self._texts[pick]]).vectors
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            self._asked.lost.append((due, type(error).__name__))
            self._connect_anew()
            return
        self._asked.settle(due, time.monotonic(), vector.tobytes(), self._vectors[pick])

    def _connect_anew(self) -> None:
        self._client.close()
        self._client = Client(self._path, timeout=_TIMEOUT)


def main(path: str, pairs: str, seed: str, rate: str) -> None:
    client = _Client(path, pairs, seed, rate)
    become(HONEST)
    stop = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen).start()
    print(json.dumps(asdict(client.run(stop))))


if __name__ == "__main__":
    main(*sys.argv[1:])
