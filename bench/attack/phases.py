"""The run: a quiet phase, an attack, a quiet phase, the next attack, and so on.

Before each attack the same is carried out against another daemon of the host, which shows what it
takes of the processor, whoever's daemon it is. Before and after an attack that computes, honest
neighbours compute instead: as many users as the attack has, each with a corpus to embed. A phase
without attackers is half as long as an attack, so that there are as many requests to compare with.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.attack.kinds import BESIDE
from bench.attack.kinds.attack import Attack
from bench.attack.party import Deeds, Party
from bench.attack.users import ATTACKERS, NEIGHBOURS
from bench.attack.watch import Seen, descriptors, forget_peak, peak_rss, status, traces_of, watching
from bench.manager import Manager
from client_lib import SidecarError

_PATIENCE_SECONDS = 5.0  # until the attackers' things are given back; then the daemon is replaced
_LOOK_SECONDS = 0.05
# Honest clients and those who watch connect anew all the time.
_DESCRIPTORS_MORE = 20
# One line a request that was answered is what an operator wants, or samples.
_OF_ANSWERS = "request.completed"

Phase = tuple[float, float]
"""When it began and ended, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Attacked:
    """One attack: `lines` a second about the user about whom there were most."""

    name: str
    attack: Attack
    quiet: list[Phase]
    elsewhere: Phase
    phase: Phase
    deeds: Deeds
    seen: Seen
    rss: int
    lines: float
    faults: int
    ended: int
    after: float
    left: Sequence[str]


class Phases:
    """Attacks a manager's daemon, each attack for `seconds`, and before it that of `another`."""

    def __init__(self, manager: Manager, another: Manager, *, seconds: float, seed: int) -> None:
        self._manager = manager
        self._another = another
        self._seconds = seconds
        self._seed = seed
        self._quiet: Phase | None = None
        self._quiet_users = 0  # how many of them were neighbours who computed

    def through(self, names: Sequence[str]) -> Iterator[Attacked]:
        """Yield each attack once it is over."""
        for name in names:
            users = BESIDE[name].users if BESIDE[name].computes else 0
            before = self._quiet if users == self._quiet_users else None
            before = before or self._rest(users)
            elsewhere = self._attack_another(name)
            attacked = self._attack(name, [before], elsewhere)
            time.sleep(_settling(attacked.seen))
            attacked.quiet.append(self._rest(users))
            yield attacked

    def _rest(self, users: int) -> Phase:
        with ExitStack() as neighbours:
            if users:
                uids = NEIGHBOURS[:users]
                party = Party("honest neighbours", self._manager.socket, self._seed, uids)
                neighbours.enter_context(party).begin()
            # What is seen is not of interest; that somebody looks is the same under attack.
            neighbours.enter_context(watching(self._manager.socket, self._manager.pid))
            self._quiet, self._quiet_users = self._wait(self._seconds / 2), users
        return self._quiet

    def _wait(self, seconds: float) -> Phase:
        begun = time.monotonic()
        time.sleep(seconds)
        return begun, time.monotonic()

    def _attack_another(self, name: str) -> Phase:
        uids = ATTACKERS[: BESIDE[name].users]
        with (
            Party(name, self._another.socket, self._seed, uids) as party,
            watching(self._manager.socket, self._manager.pid) as seen,
        ):
            party.begin()
            phase = self._wait(self._seconds)
        time.sleep(_settling(seen))
        if self._another.ended is not None:
            self._another.start()
            self._another.wait()
        return phase

    def _attack(self, name: str, quiet: list[Phase], elsewhere: Phase) -> Attacked:
        manager, attack = self._manager, BESIDE[name]
        uids = ATTACKERS[: attack.users]
        pid, said, open_before = manager.pid, manager.written, descriptors(manager.pid)
        forget_peak(pid)
        with (
            Party(name, manager.socket, self._seed, uids) as party,
            watching(manager.socket, pid) as seen,
        ):
            party.begin()
            phase = self._wait(self._seconds)
            deeds = party.end()
            after, left = self._given_back(set(uids), open_before)
            rss = peak_rss(pid)
        lines = self._lines(said, uids) / (phase[1] - phase[0])
        faults = manager.faults(said).total()
        return Attacked(
            name, attack, quiet, elsewhere, phase, deeds, seen, rss, lines, faults,
            self._replaced(left), after, left,
        )  # fmt: skip

    def _given_back(self, uids: set[int], descriptors_before: int) -> tuple[float, list[str]]:
        """Return for how long, in seconds, something was still held for `uids`, and what still is.

        What cannot be told, since the daemon does not answer, is not given back.
        """
        begun = time.monotonic()
        while True:
            left = self._left(uids, descriptors_before)
            after = time.monotonic() - begun
            if not left or after > _PATIENCE_SECONDS:
                return after, left
            time.sleep(_LOOK_SECONDS)

    def _left(self, uids: set[int], descriptors_before: int) -> list[str]:
        try:
            left = traces_of(status(self._manager.socket), uids)
        except SidecarError as error:
            return [f"all ({error})"]
        if descriptors(self._manager.pid) > descriptors_before + _DESCRIPTORS_MORE:
            left.append("descriptors")
        return left

    def _lines(self, said: int, uids: Sequence[int]) -> int:
        events = self._manager.events(said)
        about = Counter(each.get("peer_uid") for each in events if each["event"] != _OF_ANSWERS)
        return max(about[uid] for uid in uids)

    def _replaced(self, left: Sequence[str]) -> int:
        """Replace a daemon that has ended, or still holds something; return how many ended."""
        ended = self._manager.ended is not None
        if left and not ended:
            self._manager.kill()
        if left or ended:
            self._manager.start()
            self._manager.wait()
        return int(ended)


def _settling(seen: Seen) -> float:
    """Return for how long, in seconds, honest clients may still ask for what is overdue."""
    return 0.5 + 2 * max((*seen.pings, *seen.statuses), default=0.0)
