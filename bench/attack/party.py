"""The processes of an attack: `python -m bench.attack.party ATTACK PATH SEED UID...`.

One process forks the attackers, each of which becomes a user of its own before it does anything.
They begin at the first line of its stdin and are killed at its end, without a goodbye; then it
prints what they have done, as JSON. They are nice: what they take of the processor by computing
themselves, any process of the host could, and it would be no fault of the daemon's.
"""

import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from bench.attack.kinds import ATTACKS
from bench.attack.target import Target
from bench.attack.users import become

_NICE = 19
_READY = b"ready\n"
_STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Deeds:
    """What the attackers have done, and how many of them ended by themselves, which none should."""

    done: int
    broken: int


class Party:
    """The attackers of one attack while it is entered: they wait until they are let go."""

    def __init__(self, name: str, path: Path, seed: int, uids: Sequence[int]) -> None:
        words = (name, str(path), str(seed), *map(str, uids))
        command = [sys.executable, "-m", "bench.attack.party", *words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            raise RuntimeError("the attackers did not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def end(self) -> Deeds:
        """Kill the attackers; return when they are gone."""
        said, _ = self._process.communicate(timeout=_STOP_SECONDS)
        return Deeds(**json.loads(said))


class _Attackers:
    """Forked before they begin, so that each has imported what it needs as a user who may."""

    def __init__(self, name: str, path: str, seed: str, uids: Sequence[int]) -> None:
        context = multiprocessing.get_context("fork")
        self._attack = ATTACKS[name]
        self._path = path
        self._seed = f"{seed} {name}"
        self._begin = context.Event()
        users = [uid for uid in uids for _ in range(self._attack.processes)]
        self._counts = context.RawArray("q", len(users))
        self._processes = [
            context.Process(target=self._run, args=(index, uid)) for index, uid in enumerate(users)
        ]
        for process in self._processes:
            process.start()

    def begin(self) -> None:
        self._begin.set()

    def end(self) -> Deeds:
        broken = sum(not process.is_alive() for process in self._processes)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        return Deeds(sum(self._counts), broken)

    def _run(self, index: int, uid: int) -> None:
        os.nice(_NICE)
        become(uid)

        def did() -> None:
            self._counts[index] += 1

        self._begin.wait()
        self._attack.run(Target(self._path, random.Random(f"{self._seed} {index}"), did))


def main(name: str, path: str, seed: str, *uids: str) -> None:
    attackers = _Attackers(name, path, seed, [int(uid) for uid in uids])
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    sys.stdin.readline()
    attackers.begin()
    sys.stdin.read()
    print(json.dumps(asdict(attackers.end())))


if __name__ == "__main__":
    main(*sys.argv[1:])
