"""PURE: from what is configured and what the host is, to what will be run, and why."""

from dataclasses import dataclass

from sidecar.host import Host

PORTABLE_WEIGHT_BITS = 7
_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


class PlanError(ValueError):
    """What is configured cannot be done on this host; the message says what can."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The quantization to serve, the reason in words, and the inference threads.

    `quantization` "auto" is decided by measurement when the model is prepared.
    `weight_bits` is how many bits of a weight the host's integer multiplication bears.
    """

    quantization: str
    reason: str
    threads: int
    weight_bits: int


def make_plan(*, use_quantization: bool, quantization: str, threads: int, host: Host) -> Plan:
    """Return the plan for `host`.

    `quantization` is one of `config.QUANTIZATIONS`; `threads` 0 takes the cores that the
    host grants this process. Raises `PlanError` for a quantization that this version or this
    host does not have.
    """
    chosen, reason = _choose(use_quantization, quantization)
    return Plan(chosen, reason, threads or host.cores, weight_bits(host))


def weight_bits(host: Host) -> int:
    """Return 8 where u8 x s8 products are summed in 32 bits, 7 where 16 bits would saturate."""
    return 8 if host.isa & _DOT_PRODUCT else PORTABLE_WEIGHT_BITS


def _choose(use_quantization: bool, quantization: str) -> tuple[str, str]:
    if not use_quantization:
        return "none", "USE_QUANTIZATION is false"
    if quantization == "none":
        return "none", "QUANTIZATION_CONFIG is none"
    if quantization == "int8":
        return "int8", "QUANTIZATION_CONFIG is int8"
    if quantization == "auto":
        return "auto", "QUANTIZATION_CONFIG is auto"
    raise PlanError(
        f"QUANTIZATION_CONFIG={quantization} is not available in this version on a CPU host; "
        "use int8, auto or none"
    )
