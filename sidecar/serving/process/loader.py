"""Models from a setup, on a thread; meanwhile the service manager is kept patient."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.serving.process.warm_up import calibrate_cost
from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.cost_model import CostModel
from sidecar.serving.settings import Configure, Setup
from sidecar.systemd import Manager

# While models load, the manager is asked this often for this much more time.
_PULSE_SECONDS, _PATIENCE_USEC = 5.0, 30_000_000


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


@asynccontextmanager
async def extend_startup_timeout(manager: Manager, status: str) -> AsyncIterator[None]:
    """Tell the manager `status`, and for as long as the block takes, that it takes longer.

    A model that is prepared first takes minutes; the manager's patience is seconds.
    """
    manager.tell(STATUS=status, EXTEND_TIMEOUT_USEC=_PATIENCE_USEC)
    pulse = asyncio.create_task(_pulse(manager))
    try:
        yield
    finally:
        pulse.cancel()


async def _pulse(manager: Manager) -> None:
    while True:
        await asyncio.sleep(_PULSE_SECONDS)
        manager.tell(EXTEND_TIMEOUT_USEC=_PATIENCE_USEC)
