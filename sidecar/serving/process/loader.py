"""Load the models of a setup and calibrate their costs, while the service manager waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.cost_model import CostModel, Sample
from sidecar.serving.settings import Configure, Setup
from sidecar.systemd import Manager

# While models load, how often the manager is asked for more time, and for how much.
_PULSE_SECONDS, _PATIENCE_USEC = 5.0, 30_000_000
# From a short query to a paragraph; longer texts are extrapolated.
_WORDS = (2, 16, 64, 192)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Models that have computed their first rows, their costs by name, and their setup."""

    setup: Setup
    models: Sequence[ServedModel]
    costs: Mapping[str, CostModel]


def load(configure: Configure) -> Loaded:
    """Read the configuration and load its models on this thread. Raises whatever these raise."""
    setup = configure()
    models = setup.load()
    return Loaded(setup, models, {model.name: calibrate_cost(model) for model in models})


def calibrate_cost(model: ServedModel, clock: Callable[[], float] = time.perf_counter) -> CostModel:
    """Time rows of several lengths on this thread, and return a cost model fitted to them.

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
    """Report `status` to the manager, and keep extending its timeout while the block runs.

    Preparing a model takes minutes; the manager's startup timeout is shorter.
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
