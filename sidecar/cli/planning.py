"""Shared by the commands: the facts of this host, and the plan for it and the settings."""

from sidecar.config import Config
from sidecar.host import Host, cuda_device, read_host
from sidecar.models.precision import Precision
from sidecar.plan import PORTABLE_WEIGHT_BITS, Plan, make_plan

FLOORS = ("int8_floor", "int4_floor")
"""The settings that `precision` uses in addition to the plan."""


def host_and_plan(config: Config) -> tuple[Host, Plan]:
    """Return this host's facts and the plan for it. Raises `PlanError`.

    A CUDA device that would not be used is not probed for, as that imports torch.
    """
    host = read_host(probe=None if config.device == "cpu" else cuda_device)
    plan = make_plan(
        use_quantization=config.use_quantization,
        quantization=config.quantization,
        threads=config.threads,
        host=host,
        device=config.device,
    )
    return host, plan


def precision(config: Config, plan: Plan, *, portable: bool = False) -> Precision:
    """Return the precision of `plan`; if `portable`, one that saturates on no processor."""
    bits = PORTABLE_WEIGHT_BITS if portable else plan.weight_bits
    floor = config.int4_floor if plan.quantization == "int4" else config.int8_floor
    return Precision(plan.quantization, bits, floor)
