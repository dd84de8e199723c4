"""The processor: how much of it is granted, what it can multiply, and who else uses it."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

from sidecar.host import Host
from sidecar.operate.doctor.finding import Finding, note, ok, warning
from sidecar.plan import Plan, weight_bits

_SAMPLE_SECONDS = 0.5
_STEAL_PERCENT = 5.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Usage:
    """The processors of the machine, those that this process may run on, and their load.

    `load` is the mean number of runnable tasks over the last minute, `steal_percent` the share of
    time that the hypervisor gave to other machines.
    """

    machine: int
    affinity: int
    load: float
    steal_percent: float


def read_usage() -> Usage:
    """Return this machine's usage; takes half a second."""
    times = psutil.cpu_times_percent(interval=_SAMPLE_SECONDS)
    return Usage(
        machine=os.cpu_count() or 1,
        affinity=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        steal_percent=getattr(times, "steal", 0.0),
    )


def check_cores(host: Host, usage: Usage) -> Iterator[Finding]:
    """Whether all of the machine's cores are granted."""
    found = f"{host.cores} of {usage.machine} cores granted"
    if host.cores == usage.machine:
        yield ok("cores", found)
        return
    why = "affinity" if usage.affinity == host.cores else "the cgroup's quota"
    advice = "to grant more, set CPUQuota, CPUAffinity or AllowedCPUs in the daemon's unit"
    yield note("cores", f"{found}, limited by {why}", advice)


def check_load(usage: Usage) -> Iterator[Finding]:
    """Whether others use the same cores."""
    found = f"load {usage.load:.1f} on {usage.machine} cores, steal {usage.steal_percent:.0f} %"
    if usage.steal_percent >= _STEAL_PERCENT:
        advice = "the hypervisor gives its time to other machines: move this one, or ask for more"
        yield warning("load", found, advice)
    elif usage.load > usage.machine:
        advice = "see what uses the cores (`top`); the unit's CPUWeight sets its share"
        yield warning("load", found, advice)
    else:
        yield ok("load", found)


def check_instructions(host: Host, machine: str = platform.machine()) -> Iterator[Finding]:
    """Which integer multiplication the processor supports, and how fast int8 is with it."""
    flags = ", ".join(sorted(host.isa))
    if not host.isa and host.cpu_model == "unknown" and machine == "x86_64":
        found = "/proc/cpuinfo cannot be read, so the slowest arithmetic is used"
        yield warning("instructions", found, "set ProcSubset=all in the unit, or mount /proc")
    elif weight_bits(host) > 7:  # noqa: PLR2004 - 8 bits do not saturate
        found = f"{host.cpu_model}: {flags}; 8-bit weights, int8 about twice as fast as FP32"
        yield ok("instructions", found)
    elif "avx2" in host.isa:
        found = (
            f"{host.cpu_model}: {flags}, no VNNI; weights share 8 bits in pairs, "
            "int8 up to twice as fast as FP32"
        )
        yield note("instructions", found, "`sidecar plan` measures it on this host")
    else:
        found = f"{host.cpu_model}: no AVX2 and no dot product; int8 may be slower than FP32"
        yield warning(
            "instructions", found, "QUANTIZATION_CONFIG=auto picks the faster; see `sidecar plan`"
        )


def check_threads(plan: Plan, host: Host, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether inference threads match the cores, and whether other pools compete with them."""
    found = f"{plan.threads} inference threads on {host.cores} granted cores"
    if plan.device == "cuda" or plan.threads == host.cores:
        yield ok("threads", found)
    elif plan.threads > host.cores:
        yield warning("threads", found, "they compete for cores: set SIDECAR_THREADS=0")
    else:
        yield note("threads", found, "SIDECAR_THREADS=0 uses all of them")
    yield from _pools(environ)


def _pools(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in _THREAD_VARIABLES:
        if environ.get(name, "1") != "1":
            found = f"{name}={environ[name]} in the environment"
            advice = "unset it: such pools compete with the daemon's own threads"
            yield warning("threads", found, advice)
    if environ.get("TOKENIZERS_PARALLELISM", "").lower() in {"true", "1", "on", "yes"}:
        found = "TOKENIZERS_PARALLELISM is on in the environment"
        yield note("threads", found, "unset it; the daemon turns it off for itself")
