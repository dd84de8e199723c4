"""Texts asked for one by one: of a server by clients, or of an encoder in this process."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from threading import Barrier
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
Ask: TypeAlias = Callable[[str], Vector]
Connect: TypeAlias = Callable[[], AbstractContextManager[Ask]]
Encode: TypeAlias = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Visit:
    """How long all texts took together, and each for whoever asked for it, in seconds.

    `vectors` are float32 [texts, dimensions]; `processor_seconds` are this process's own.
    """

    seconds: float
    times: Sequence[float]
    vectors: NDArray[np.float32]
    processor_seconds: float


def crowd(connect: Connect, texts: Sequence[str], clients: int) -> Visit:
    """Have `clients` ask, each on a thread and a connection of its own, until none is left."""
    todo = deque(enumerate(texts))
    times, vectors = [0.0] * len(texts), [np.empty(0, np.float32)] * len(texts)
    ready = Barrier(clients + 1)

    def run(ask: Ask) -> None:
        ready.wait()
        while todo:
            try:
                index, text = todo.popleft()
            except IndexError:  # another thread was faster
                return
            begun = time.perf_counter()
            vectors[index] = ask(text)
            times[index] = time.perf_counter() - begun

    with ExitStack() as stack, ThreadPoolExecutor(clients) as pool:
        asks = [stack.enter_context(connect()) for _ in range(clients)]
        running = [pool.submit(run, ask) for ask in asks]
        ready.wait()
        started, processor = time.perf_counter(), time.process_time()
        for each in running:
            each.result()
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return Visit(seconds, times, np.stack(vectors), processor)


def in_batches(encode: Encode, texts: Sequence[str], size: int) -> Visit:
    """Encode in order of arrival: a text that has not arrived yet cannot be sorted.

    Whoever asked for a text waits for all of its batch.
    """
    times: list[float] = []
    vectors = []
    processor = time.process_time()
    for start in range(0, len(texts), size):
        batch = list(texts[start : start + size])
        begun = time.perf_counter()
        vectors.append(encode(batch))
        times += [time.perf_counter() - begun] * len(batch)
    seconds = sum(times[::size])
    return Visit(seconds, times, np.concatenate(vectors), time.process_time() - processor)
