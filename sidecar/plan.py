"""PURE: from what is configured and what the host is, to what will be run, and why."""

from dataclasses import dataclass

from sidecar.host import Host


class PlanError(ValueError):
    """What is configured cannot be done on this host; the message says what can."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The quantization to serve, the reason in words, and the inference threads."""

    quantization: str
    reason: str
    threads: int


def make_plan(*, use_quantization: bool, quantization: str, threads: int, host: Host) -> Plan:
    """Return the plan for `host`.

    `quantization` is one of `config.QUANTIZATIONS`; `threads` 0 takes the cores that the
    host grants this process. Raises `PlanError` for a quantization that this version or this
    host does not have.
    """
    chosen, reason = _choose(use_quantization, quantization)
    return Plan(chosen, reason, threads or host.cores)


def _choose(use_quantization: bool, quantization: str) -> tuple[str, str]:
    if not use_quantization:
        return "none", "USE_QUANTIZATION is false"
    if quantization == "none":
        return "none", "QUANTIZATION_CONFIG is none"
    if quantization == "int8":
        return "int8", "QUANTIZATION_CONFIG is int8"
    if quantization == "auto":
        return "int8", "QUANTIZATION_CONFIG is auto: int8 is the fastest that this version has"
    raise PlanError(
        f"QUANTIZATION_CONFIG={quantization} is not available in this version on a CPU host; "
        "use int8, auto or none"
    )
