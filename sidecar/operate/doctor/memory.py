"""Memory: what is granted, against what the models need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from sidecar.config import Config
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning

# A daemon without a model: interpreter, onnxruntime, tokenizers.
_BARE = 85 * 10**6
# Beside its weights a model has a tokenizer, a graph and room to compute in.
_PER_MODEL, _PER_WEIGHT = 25 * 10**6, 1.1
# What preparing took of models of 90 and of 440 MB: in FP32, with activations to calibrate on.
_PREPARING, _PREPARING_PER_WEIGHT = 250 * 10**6, 3.5
_ROOMY = 0.8
_LANES = 2


@dataclass(frozen=True, slots=True)
class Swap:
    """Bytes of swap that this host has, and that are in use."""

    total: int
    used: int


def read_swap() -> Swap:
    """Return the facts of this host."""
    swap = psutil.swap_memory()
    return Swap(swap.total, swap.used)


def needed_bytes(weights: Sequence[int]) -> int:
    """Return about what a daemon takes that serves models whose weights have these bytes."""
    return round(_BARE + sum(_PER_MODEL + _PER_WEIGHT * size for size in weights))


def check_preparing(limit: int, source: str, unprepared: Sequence[int]) -> Iterator[Finding]:
    """Whether models of these bytes in FP32 can be prepared under `limit`, one after the other."""
    if not unprepared:
        return
    needed = round(_PREPARING + _PREPARING_PER_WEIGHT * max(unprepared))
    found = f"{source} grants {_mb(limit)}; preparing takes about {_mb(needed)}, once"
    if needed > limit:
        advice = "prepare elsewhere with `sidecar prepare --portable`, and copy the artifact"
        yield error("memory", found, advice)
    else:
        yield ok("memory", found)


def check_memory(limit: int, source: str, needed: int, config: Config) -> Iterator[Finding]:
    """Whether the daemon fits under `limit`, which is set by `source`; all in bytes."""
    found = f"{source} grants {_mb(limit)}; serving takes about {_mb(needed)}"
    if needed > limit:
        advice = "grant more (MemoryMax of the unit), or QUANTIZATION_CONFIG=int4"
        yield error("memory", found, advice)
    elif needed > _ROOMY * limit:
        yield warning("memory", found, "grant a quarter more than that: requests need room, too")
    elif needed + _LANES * config.max_queue_bytes > limit:
        queue = f"full queues would take another {_mb(_LANES * config.max_queue_bytes)}"
        yield note("memory", f"{found}; {queue}", "lower SIDECAR_MAX_QUEUE_BYTES, or grant more")
    else:
        yield ok("memory", found)


def check_swap(swap: Swap) -> Iterator[Finding]:
    """Whether weights may have to be fetched from a disk."""
    if swap.used:
        found = f"{_mb(swap.used)} of {_mb(swap.total)} swap are in use"
        advice = "if the daemon's pages are among them it stalls: MemorySwapMax=0 keeps them out"
        yield note("swap", found, advice)
    else:
        yield ok("swap", f"none of {_mb(swap.total)} in use" if swap.total else "none on this host")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
