"""Pure functions from the configuration and the host to what will run, and why."""

from dataclasses import dataclass

from sidecar.host import Host

PORTABLE_WEIGHT_BITS = 7
_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


class PlanError(ValueError):
    """The configuration cannot run on this host; the message says what can."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The quantization to serve, the reason for it, the inference threads and the device.

    If `quantization` is "auto", measurements decide when the model is prepared. `weight_bits` is
    the number of bits per weight that the host can multiply without saturation. `device` is "cpu"
    or "cuda".
    """

    quantization: str
    reason: str
    threads: int
    weight_bits: int
    device: str


def make_plan(
    *, use_quantization: bool, quantization: str, threads: int, host: Host, device: str = "auto"
) -> Plan:
    """Return the plan for `host`.

    `quantization` is one of `config.QUANTIZATIONS`, `device` one of `config.DEVICES`: "auto" is
    the CUDA device if there is one. `threads` 0 means all cores available to the process, or one
    on CUDA, which is enough to keep the device busy. Raises `PlanError` for a quantization or
    device that this host does not support.
    """
    computes = _device(device, host)
    chosen, reason = _choose(use_quantization, quantization, computes)
    default_threads = 1 if computes == "cuda" else host.cores
    return Plan(chosen, reason, threads or default_threads, weight_bits(host), computes)


def weight_bits(host: Host) -> int:
    """Return 8 if u8 x s8 products are summed in 32 bits, 7 if in 16 bits, which would saturate."""
    return 8 if host.isa & _DOT_PRODUCT else PORTABLE_WEIGHT_BITS


def _device(device: str, host: Host) -> str:
    if device == "cuda" and host.cuda is None:
        raise PlanError(
            "SIDECAR_DEVICE=cuda needs an NVIDIA driver and a CUDA build of torch that sees the "
            "device (extra `server`); use auto or cpu"
        )
    return "cuda" if device != "cpu" and host.cuda else "cpu"


def _choose(use_quantization: bool, quantization: str, device: str) -> tuple[str, str]:
    if not use_quantization:
        return "none", "USE_QUANTIZATION is false"
    if quantization == "none":
        return "none", "QUANTIZATION_CONFIG is none"
    if device == "cuda":
        return _choose_on_cuda(quantization)
    if quantization == "fp16":
        raise PlanError(
            "QUANTIZATION_CONFIG=fp16 needs a CUDA device and a CUDA build of torch (extra "
            "`server`); on a CPU use int8, int4, auto or none"
        )
    return quantization, f"QUANTIZATION_CONFIG is {quantization}"


def _choose_on_cuda(quantization: str) -> tuple[str, str]:
    if quantization == "fp16":
        return "fp16", "QUANTIZATION_CONFIG is fp16"
    if quantization in {"int8", "auto"}:
        return "fp16", f"QUANTIZATION_CONFIG is {quantization}, which on a CUDA device means fp16"
    raise PlanError(
        f"QUANTIZATION_CONFIG={quantization} is not available on a CUDA device; "
        "use fp16, auto or none, or SIDECAR_DEVICE=cpu"
    )
