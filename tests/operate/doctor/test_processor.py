"""Cores, load, instructions and threads, for every kind of host."""

import os
from types import SimpleNamespace

import psutil
import pytest

from sidecar.host import Host
from sidecar.operate.doctor import processor
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
    """A process that is granted all cores is OK."""
    (finding,) = check_cores(host(), usage())
    assert (finding.severity, finding.found) == (Severity.OK, "4 of 4 cores granted")


@pytest.mark.parametrize(("affinity", "why"), [(2, "affinity"), (4, "quota")])
def test_fewer_cores_are_noted_with_what_limits_them(affinity: int, why: str) -> None:
    """Fewer cores than the machine has are a note that names the limit and how to raise it."""
    (finding,) = check_cores(host(cores=2), usage(affinity))
    assert finding.severity is Severity.NOTE
    assert "2 of 4" in finding.found
    assert why in finding.found
    assert "CPUQuota, CPUAffinity" in finding.advice


@pytest.mark.parametrize(
    ("load", "steal", "severity", "advice"),
    [
        (0.5, 0, Severity.OK, ""),
        (4.0, 4.9, Severity.OK, ""),
        (4.1, 0, Severity.WARNING, "CPUWeight"),
        (9.0, 0, Severity.WARNING, "CPUWeight"),
        (0.5, 5.0, Severity.WARNING, "hypervisor"),
        (9.0, 20, Severity.WARNING, "hypervisor"),
    ],
)
def test_who_else_computes(load: float, steal: float, severity: Severity, advice: str) -> None:
    """More runnable tasks than cores, or time stolen by the hypervisor, is a warning."""
    (finding,) = check_load(usage(load=load, steal=steal))
    assert finding.severity is severity
    assert finding.found == f"load {load} on 4 cores, steal {steal:.0f} %"
    assert advice in finding.advice
    assert bool(finding.advice) == bool(advice)


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
    """The finding names the processor's instructions and the speed that follows from them."""
    (finding,) = check_instructions(host(isa=frozenset(isa), model=model), "x86_64")
    assert finding.severity is severity
    assert found in finding.found
    assert bool(finding.advice) == (severity is not Severity.OK)
    if isa:
        assert finding.found.startswith(f"{model}: {', '.join(sorted(isa))}")


def test_only_an_x86_processor_without_a_name_is_hidden() -> None:
    """Only an x86 processor without a name is reported as hidden, as ARM ones have no name."""
    (finding,) = check_instructions(host(model="unknown"), "aarch64")
    assert "no AVX2 and no dot product" in finding.found
    assert "QUANTIZATION_CONFIG=auto" in finding.advice
    (finding,) = check_instructions(host(model="unknown"), "x86_64")
    assert "ProcSubset=all" in finding.advice
    (finding,) = check_instructions(host(isa=frozenset({"avx2"}), model="unknown"), "x86_64")
    assert "weights share 8 bits" in finding.found


def test_threads_that_fit() -> None:
    """As many threads as cores are OK, as is any number on a CUDA device."""
    (finding,) = check_threads(plan(), host(), {})
    said = "4 inference threads on 4 granted cores"
    assert (finding.severity, finding.found) == (Severity.OK, said)
    for threads in (1, 8):
        (finding,) = check_threads(plan(threads, "cuda"), host(), {})
        assert finding.severity is Severity.OK


def test_threads_that_do_not_fit() -> None:
    """More threads than cores are a warning, fewer a note."""
    for threads, severity, advice in (
        (5, Severity.WARNING, "compete for cores"),
        (8, Severity.WARNING, "compete for cores"),
        (3, Severity.NOTE, "uses all of them"),
        (1, Severity.NOTE, "uses all of them"),
    ):
        (finding,) = check_threads(plan(threads), host(), {})
        assert finding.severity is severity
        assert finding.found == f"{threads} inference threads on 4 granted cores"
        assert advice in finding.advice
        assert "SIDECAR_THREADS=0" in finding.advice


def test_other_pools_that_fight() -> None:
    """The thread pools of OpenMP and of the tokenizer are found by their environment variables."""
    environ = {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "true"}
    found = [f.found for f in check_threads(plan(), host(), environ) if f.severity > Severity.OK]
    assert [text.split(" ")[0].split("=")[0] for text in found] == [
        "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_pools_of_other_libraries_are_warned_of(name: str) -> None:
    """A pool of more than one thread is a warning, beside the finding on inference threads."""
    fits, finding = check_threads(plan(), host(), {name: "8"})
    assert fits.severity is Severity.OK
    assert finding.severity is Severity.WARNING
    assert finding.found == f"{name}=8 in the environment"
    assert "unset it" in finding.advice
    assert len(list(check_threads(plan(), host(), {name: "1"}))) == 1


@pytest.mark.parametrize("value", ["true", "TRUE", "1", "on", "yes"])
def test_the_tokenizers_pool_is_noted(value: str) -> None:
    """The tokenizer's own parallelism is a note if it is on."""
    _, finding = check_threads(plan(), host(), {"TOKENIZERS_PARALLELISM": value})
    assert finding.severity is Severity.NOTE
    assert "unset it" in finding.advice
    for off in ("false", "0", ""):
        assert len(list(check_threads(plan(), host(), {"TOKENIZERS_PARALLELISM": off}))) == 1


def test_the_usage_is_that_of_the_last_minute_and_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Usage has the last minute's load, this process's affinity, and steal over half a second."""
    intervals: list[float] = []

    def measured(*, interval: float) -> SimpleNamespace:
        intervals.append(interval)
        return SimpleNamespace(user=50.0, steal=7.5)

    monkeypatch.setattr(psutil, "cpu_times_percent", measured)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 2.5, 3.5))
    assert read_usage() == Usage(machine=9, affinity=2, load=1.5, steal_percent=7.5)
    assert intervals == [0.5]
    monkeypatch.setattr(psutil, "cpu_times_percent", lambda **_: SimpleNamespace(user=50.0))
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (read_usage().machine, read_usage().steal_percent) == (1, 0.0)


def test_this_machine_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usage of this machine can be read, and is plausible."""
    monkeypatch.setattr(processor, "_SAMPLE_SECONDS", 0.01)
    facts = read_usage()
    assert facts.machine >= facts.affinity >= 1
    assert facts.load >= 0
    assert 0 <= facts.steal_percent <= 100
