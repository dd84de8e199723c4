"""Share the event loop's time between users, so that nobody starves the others.

In each round, every user may spend a limited time on reading frames and starting requests. Those
with more to do, on however many connections, continue in later rounds.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable

# What starts in a round runs its first step in the next one, which takes several times as long.
_SECONDS_PER_ROUND = 0.000_5
# The shortest timer that an event loop reliably keeps.
_REST_SECONDS = 0.001


class LoopTime:
    """How long each user has used the loop in this round. Use it on one running loop.

    A round is an iteration of the event loop. While other threads work, as `working` reports, and
    some user exceeds their share, a round lasts at least a millisecond: a loop that never sleeps
    holds the GIL, and every step of those threads waits for it.
    """

    def __init__(self, working: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._working = working
        self._spent: dict[int, float] = {}
        self._waiting: defaultdict[int, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._end_scheduled = False  # whether the end of the round is scheduled

    def spend(self, uid: int, started: float) -> None:
        """Charge the user for the time since `started`, on the clock of `time.perf_counter`."""
        spent = time.perf_counter() - started
        self._spent[uid] = self._spent.get(uid, 0.0) + spent
        self._schedule_end()

    def is_over(self, uid: int) -> bool:
        """Whether the user has to wait for its `turn`."""
        return uid in self._waiting or self._spent.get(uid, 0.0) >= _SECONDS_PER_ROUND

    async def turn(self, uid: int) -> None:
        """Return at once if the user has time left in this round, otherwise in a later one."""
        if not self.is_over(uid):
            return
        turn = self._loop.create_future()
        self._waiting[uid].append(turn)
        self._schedule_end()
        # If this is cancelled, the next round finds it done and wakes the one after it.
        await turn

    def _schedule_end(self) -> None:
        if not self._end_scheduled:
            self._end_scheduled = True
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        """End the round: now, or after a rest."""
        if self._waiting and self._working():
            self._loop.call_later(_REST_SECONDS, self._begin_next)
        else:
            self._begin_next()

    def _begin_next(self) -> None:
        self._end_scheduled = False
        self._spent.clear()
        for uid in list(self._waiting):
            self._wake_one(uid)
        if self._waiting:
            self._schedule_end()

    def _wake_one(self, uid: int) -> None:
        turns = self._waiting[uid]
        while turns:
            turn = turns.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if not turns:
            del self._waiting[uid]
