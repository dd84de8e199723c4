"""Models from a setup, on a thread; meanwhile the service manager is kept patient."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.cost_model import CostModel, Sample
from sidecar.serving.settings import Configure, Setup
from sidecar.systemd import Manager

# While models load, the manager is asked this often for this much more time.
_PULSE_SECONDS, _PATIENCE_USEC = 5.0, 30_000_000
# From a short query to a paragraph; the line through them serves beyond.
_WORDS = (2, 16, 64, 192)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Models that have computed their first rows, what rows cost, and what they came from."""

    setup: Setup
    models: Sequence[ServedModel]
    costs: Mapping[str, CostModel]


def load(configure: Configure) -> Loaded:
    """Read the configuration and load its models, on this thread. Raises what they raise."""
    setup = configure()
    models = setup.load()
    return Loaded(setup, models, {model.name: calibrate_cost(model) for model in models})


def calibrate_cost(model: ServedModel, clock: Callable[[], float] = time.perf_counter) -> CostModel:
    """Compute a few rows of several lengths, on this thread, and return what rows cost.

    Raises whatever the model raises.
    """
    return CostModel([_measure(model, words, clock) for words in _WORDS])


def _measure(model: ServedModel, words: int, clock: Callable[[], float]) -> Sample:
    text = " ".join(["word"] * words)
    (row,) = model.tokenize([(text, text) if model.task == "rerank" else text])
    model.forward(row)  # the first of a length allocates; the next ones do not
    started = clock()
    model.forward(row)
    return row.tokens, clock() - started


@asynccontextmanager
async def extend_startup_timeout(manager: Manager, status: str) -> AsyncIterator[None]:
    """Tell the manager `status`, and for as long as the block takes, that it takes longer.

    A model that is prepared first takes minutes; the manager's patience is seconds.
    """
    manager.notify(STATUS=status, EXTEND_TIMEOUT_USEC=_PATIENCE_USEC)
    pulse = asyncio.create_task(_pulse(manager))
    try:
        yield
    finally:
        pulse.cancel()


async def _pulse(manager: Manager) -> None:
    while True:
        await asyncio.sleep(_PULSE_SECONDS)
        manager.notify(EXTEND_TIMEOUT_USEC=_PATIENCE_USEC)
