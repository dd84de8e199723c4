"""Facts about the host: cores, memory, instruction sets, CUDA. Read once; makes no decisions."""

import errno
import importlib.util
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeAlias

Probe: TypeAlias = Callable[[], str | None]
"""Returns the name of the CUDA device, or None."""
_ISA_FLAGS = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
)
_NVIDIA_DRIVER = "proc/driver/nvidia/version"
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(frozen=True, slots=True)
class Host:
    """What this process may use: `cores` and `memory_bytes`, within affinity and cgroup limits.

    `isa` holds the CPU flags that determine the speed of integer multiplication. `cuda` is the
    name of the CUDA device that torch uses; None if there is none or it was not probed.
    """

    cores: int
    memory_bytes: int
    isa: frozenset[str]
    cpu_model: str
    cuda: str | None


def read_host(
    root: Path = Path("/"),
    affinity: Collection[int] | None = None,
    probe: Probe | None = None,
) -> Host:
    """Return the facts, read from the files below `root`.

    `affinity` is the set of usable processors; by default this process's own. `probe` is called
    for a CUDA device only if NVIDIA's driver is loaded. Raises `OSError` if the process is out
    of file descriptors or memory.
    """
    allowed = len(os.sched_getaffinity(0) if affinity is None else affinity)
    cpuinfo = _read(root / "proc/cpuinfo")
    return Host(
        cores=max(1, min([allowed, *_quotas(root)])),
        memory_bytes=min([_physical_bytes(root), *_memory_limits(root)]),
        isa=_ISA_FLAGS & _words(cpuinfo, "flags", "Features"),
        cpu_model=_field(cpuinfo, "model name") or "unknown",
        cuda=probe() if probe and (root / _NVIDIA_DRIVER).is_file() else None,
    )


def cuda_device() -> str | None:
    """Return the name of the CUDA device that torch uses, or None.

    Immediate without the extra `server`; with it, torch is imported, which takes seconds.
    """
    if not all(map(importlib.util.find_spec, ("torch", "sentence_transformers"))):
        return None
    # torch reads it on import. The daemon's own threads already use every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch  # noqa: PLC0415 - only if there may be a device

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _quotas(root: Path) -> Iterator[int]:
    """Yield the CPU quota of each cgroup of this process, in processors, rounded up."""
    for directory in _cgroups(root, "cpu"):
        quota, _, period = _read(directory / "cpu.max").partition(" ")  # v2: "150000 100000"
        if not quota:
            quota = _read(directory / "cpu.cfs_quota_us")  # v1: -1 if unlimited
            period = _read(directory / "cpu.cfs_period_us")
        if _is_count(quota) and _is_count(period):
            yield ceil(int(quota) / int(period))


def _memory_limits(root: Path) -> Iterator[int]:
    for directory in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if _is_count(limit := _read(directory / name)):
                yield int(limit)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the cgroup directories, leaf first, that may limit `controller` for this process.

    In a container the paths in /proc may be the host's, so that only the mount's root exists.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controller in controllers.split(","):
            mount /= controller  # v1: one hierarchy per controller
        elif number != "0":
            continue
        leaf = mount / path.lstrip("/")
        yield from (d for d in (leaf, *leaf.parents) if d.is_relative_to(mount))


def _physical_bytes(root: Path) -> int:
    if total := _field(_read(root / "proc/meminfo"), "MemTotal"):  # "16384 kB"
        return 1024 * int(total.split()[0])
    # A sandbox may hide the file, but not the system call.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _words(text: str, *names: str) -> frozenset[str]:
    return frozenset(word for name in names for word in _field(text, name).split())


def _field(text: str, name: str) -> str:
    """Return the value of the first "name : value" line, or ""."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _is_count(value: str) -> bool:
    return value.isdecimal() and int(value) > 0


def _read(path: Path) -> str:
    """Return the content of the file; "" if it is missing or unreadable.

    Raises `OSError` if the process is out of descriptors or memory: that says nothing about the
    host.
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return ""
