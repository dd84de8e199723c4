"""Facts about the host that the process finds itself on. Read once; decides nothing."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

_ISA_FLAGS = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
)


@dataclass(frozen=True, slots=True)
class Host:
    """What this process may use: `cores` to compute on, `memory_bytes` at most.

    Both are within affinity and cgroup limits. `isa` holds those flags of the processor that
    decide how fast integers are multiplied.
    """

    cores: int
    memory_bytes: int
    isa: frozenset[str]
    cpu_model: str


def read_host(root: Path = Path("/"), affinity: Collection[int] | None = None) -> Host:
    """Return the facts, read from the files below `root`.

    `affinity` is the set of processors that may be used; by default this process's own.
    """
    allowed = len(os.sched_getaffinity(0) if affinity is None else affinity)
    cpuinfo = _read(root / "proc/cpuinfo")
    return Host(
        cores=max(1, min([allowed, *_quotas(root)])),
        memory_bytes=min([_physical_bytes(root), *_memory_limits(root)]),
        isa=_ISA_FLAGS & _words(cpuinfo, "flags", "Features"),
        cpu_model=_field(cpuinfo, "model name") or "unknown",
    )


def _quotas(root: Path) -> Iterator[int]:
    """Yield the processors that each cgroup above this process grants, rounded up."""
    for directory in _cgroups(root, "cpu"):
        quota, _, period = _read(directory / "cpu.max").partition(" ")  # v2: "150000 100000"
        if not quota:
            quota = _read(directory / "cpu.cfs_quota_us")  # v1: -1 where there is none
            period = _read(directory / "cpu.cfs_period_us")
        if _is_count(quota) and _is_count(period):
            yield ceil(int(quota) / int(period))


def _memory_limits(root: Path) -> Iterator[int]:
    for directory in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if _is_count(limit := _read(directory / name)):
                yield int(limit)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories, leaf first, that may limit `controller` for this process.

    Inside a container the paths in /proc may be the host's; only the mount's own root is left.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controller in controllers.split(","):
            mount /= controller  # v1: a hierarchy a controller
        elif number != "0":
            continue
        leaf = mount / path.lstrip("/")
        yield from (d for d in (leaf, *leaf.parents) if d.is_relative_to(mount))


def _physical_bytes(root: Path) -> int:
    total = _field(_read(root / "proc/meminfo"), "MemTotal")  # "16384 kB"
    return 1024 * int(total.split()[0])


def _words(text: str, *names: str) -> frozenset[str]:
    return frozenset(word for name in names for word in _field(text, name).split())


def _field(text: str, name: str) -> str:
    """Return the value of the first line "name : value", or ""."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _is_count(value: str) -> bool:
    return value.isdecimal() and int(value) > 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
