"""Memory: the limit, against what the models need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from sidecar.config import Config
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning

# A daemon without a model: interpreter, onnxruntime, tokenizers.
_BARE = 85 * 10**6
# Besides its weights, a model needs a tokenizer, a graph and working memory.
_PER_MODEL, _PER_WEIGHT = 25 * 10**6, 1.1
# Measured when preparing models of 90 and 440 MB: in FP32, with calibration activations.
_PREPARING, _PREPARING_PER_WEIGHT = 250 * 10**6, 3.5
_ROOMY = 0.8
_LANES = 2


@dataclass(frozen=True, slots=True)
class Swap:
    """This host's swap, and how much of it is in use, in bytes."""

    total: int
    used: int


def read_swap() -> Swap:
    """Return this host's swap."""
    swap = psutil.swap_memory()
    return Swap(swap.total, swap.used)


def needed_bytes(weights: Sequence[int]) -> int:
    """Return roughly the bytes that a daemon needs to serve models of these weight sizes."""
    return round(_BARE + sum(_PER_MODEL + _PER_WEIGHT * size for size in weights))


def check_preparing(limit: int, source: str, unprepared: Sequence[int]) -> Iterator[Finding]:
    """Whether models of these FP32 sizes, in bytes, can be prepared under `limit` in turn."""
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
    """Whether the daemon fits under `limit`, which `source` sets; all in bytes."""
    found = f"{source} grants {_mb(limit)}; serving takes about {_mb(needed)}"
    if needed > limit:
        advice = "grant more (the unit's MemoryMax), or set QUANTIZATION_CONFIG=int4"
        yield error("memory", found, advice)
    elif needed > _ROOMY * limit:
        yield warning("memory", found, "grant a quarter more than that: requests need memory too")
    elif needed + _LANES * config.max_queue_bytes > limit:
        queue = f"full queues would take another {_mb(_LANES * config.max_queue_bytes)}"
        yield note("memory", f"{found}; {queue}", "lower SIDECAR_MAX_QUEUE_BYTES, or grant more")
    else:
        yield ok("memory", found)


def check_swap(swap: Swap) -> Iterator[Finding]:
    """Whether the daemon's weights may have been swapped out."""
    if swap.used:
        found = f"{_mb(swap.used)} of {_mb(swap.total)} swap in use"
        advice = "a daemon stalls if its pages are swapped out: MemorySwapMax=0 prevents that"
        yield note("swap", found, advice)
    else:
        yield ok("swap", f"none of {_mb(swap.total)} in use" if swap.total else "none on this host")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
