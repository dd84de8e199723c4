"""The event loop's time, shared by users: nobody keeps the others from their turn.

In each round every user may spend so much of it on reading frames and beginning what they ask
for. Whoever has more to do, on however many connections, goes on in later rounds.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable

# What is begun in a round has its first step in the next one, which takes some times as long.
_SECONDS_A_ROUND = 0.000_5
# The shortest timer that an event loop is sure to keep.
_REST_SECONDS = 0.001


class LoopTime:
    """How long each user has had the loop in this round. Used on one running loop.

    A round is one of the loop's own. While other threads work, as `working` tells, it is no
    shorter than a millisecond where somebody wants more than his part of it: a loop that never
    sleeps keeps the interpreter's lock, and each step of those threads waits for it.
    """

    def __init__(self, working: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._working = working
        self._spent: dict[int, float] = {}
        self._waiting: defaultdict[int, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._ends = False  # whether the end of the round is to be heard of

    def spend(self, uid: int, started: float) -> None:
        """Count the time since `started`, on the clock of `time.perf_counter`, as the user's."""
        spent = time.perf_counter() - started
        self._spent[uid] = self._spent.get(uid, 0.0) + spent
        self._await_end()

    def is_over(self, uid: int) -> bool:
        """Whether the user has to wait for its `turn`."""
        return uid in self._waiting or self._spent.get(uid, 0.0) >= _SECONDS_A_ROUND

    async def turn(self, uid: int) -> None:
        """Return at once where the user has time left in this round, else in a later one."""
        if not self.is_over(uid):
            return
        turn = self._loop.create_future()
        self._waiting[uid].append(turn)
        self._await_end()
        # Where it is cancelled the next round finds it done, and lets the next one go on.
        await turn

    def _await_end(self) -> None:
        if not self._ends:
            self._ends = True
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        """End the round: now, or after a rest."""
        if self._waiting and self._working():
            self._loop.call_later(_REST_SECONDS, self._begin_next)
        else:
            self._begin_next()

    def _begin_next(self) -> None:
        self._ends = False
        self._spent.clear()
        for uid in list(self._waiting):
            self._let_one_go_on(uid)
        if self._waiting:
            self._await_end()

    def _let_one_go_on(self, uid: int) -> None:
        turns = self._waiting[uid]
        while turns:
            turn = turns.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if not turns:
            del self._waiting[uid]
