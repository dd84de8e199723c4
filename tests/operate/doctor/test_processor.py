"""Cores, load, instructions and threads: every kind of host, as facts."""

import pytest

from sidecar.host import Host
from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.processor import (
    Usage,
    check_cores,
    check_instructions,
    check_load,
    check_threads,
    read_usage,
)
from sidecar.plan import Plan


def host(cores: int = 4, isa: frozenset[str] = frozenset(), model: str = "Some CPU") -> Host:
    return Host(cores=cores, memory_bytes=2**30, isa=isa, cpu_model=model, cuda=None)


def usage(affinity: int = 4, load: float = 0.1, steal: float = 0.0) -> Usage:
    return Usage(machine=4, affinity=affinity, load=load, steal_percent=steal)


def plan(threads: int = 4, device: str = "cpu") -> Plan:
    return Plan("int8", "", threads, 8, device)


def test_all_cores_are_fine() -> None:
    """Nothing limits the process."""
    (finding,) = check_cores(host(), usage())
    assert (finding.severity, finding.found) == (Severity.OK, "4 of 4 cores granted")


@pytest.mark.parametrize(("affinity", "why"), [(2, "affinity"), (4, "quota")])
def test_fewer_cores_are_noted_with_what_limits_them(affinity: int, why: str) -> None:
    """It may be meant so; the figures say how much is missing."""
    (finding,) = check_cores(host(cores=2), usage(affinity))
    assert finding.severity is Severity.NOTE
    assert "2 of 4" in finding.found
    assert why in finding.found


@pytest.mark.parametrize(
    ("load", "steal", "severity"),
    [(0.5, 0, Severity.OK), (9.0, 0, Severity.WARNING), (0.5, 20, Severity.WARNING)],
)
def test_who_else_computes(load: float, steal: float, severity: Severity) -> None:
    """More runnable tasks than cores, or a hypervisor that gives the time to others."""
    (finding,) = check_load(usage(load=load, steal=steal))
    assert finding.severity is severity


@pytest.mark.parametrize(
    ("isa", "model", "severity", "found"),
    [
        ({"avx2", "avx512_vnni"}, "Some CPU", Severity.OK, "8-bit weights"),
        ({"asimddp"}, "unknown", Severity.OK, "8-bit weights"),
        ({"avx2"}, "Some CPU", Severity.NOTE, "no VNNI; weights share 8 bits in pairs"),
        (set(), "Some CPU", Severity.WARNING, "slower than FP32"),
        (set(), "unknown", Severity.WARNING, "/proc/cpuinfo cannot be read"),
    ],
)
def test_what_the_processor_multiplies(
    isa: set[str], model: str, severity: Severity, found: str
) -> None:
    """And what speed follows, down to a processor that a sandbox hides."""
    (finding,) = check_instructions(host(isa=frozenset(isa), model=model), "x86_64")
    assert finding.severity is severity
    assert found in finding.found


def test_threads_that_fit() -> None:
    """As many as cores; on a CUDA device one is right."""
    assert [f.severity for f in check_threads(plan(), host(), {})] == [Severity.OK]
    assert [f.severity for f in check_threads(plan(1, "cuda"), host(), {})] == [Severity.OK]


def test_threads_that_do_not_fit() -> None:
    """Too many take turns, too few leave cores idle."""
    assert [f.severity for f in check_threads(plan(8), host(), {})] == [Severity.WARNING]
    assert [f.severity for f in check_threads(plan(1), host(), {})] == [Severity.NOTE]


def test_other_pools_that_fight() -> None:
    """OpenMP's threads and the tokenizer's, by the variables that start them."""
    environ = {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "true"}
    found = [f.found for f in check_threads(plan(), host(), environ) if f.severity > Severity.OK]
    assert [text.split(" ")[0].split("=")[0] for text in found] == [
        "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM",
    ]  # fmt: skip


def test_this_machine_can_be_read() -> None:
    """Whatever it is."""
    facts = read_usage()
    assert facts.machine >= facts.affinity >= 1
