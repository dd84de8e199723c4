"""The libraries and torch: missing, of other versions, not for this processor."""

import pytest

from sidecar.host import Host
from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.libraries import (
    Library,
    Torch,
    check_libraries,
    check_torch,
    check_written_by,
    read_libraries,
    read_torch,
    try_to_import,
)
from sidecar.plan import Plan

GOOD = Library("onnxruntime", "==1.32.*", "1.32.1")
HOST = Host(cores=2, memory_bytes=2**30, isa=frozenset({"avx2"}), cpu_model="CPU", cuda=None)
ON_CPU = Plan("int8", "", 2, 8, "cpu")
ON_CUDA = Plan("fp16", "", 1, 8, "cuda")


def test_all_as_asked_for() -> None:
    """The engine's version is told: it decides the speed and the last bits."""
    (finding,) = check_libraries([GOOD, Library("numpy", ">=1.26", "2.1")], None)
    assert finding.severity is Severity.OK
    assert "onnxruntime 1.32.1" in finding.found


@pytest.mark.parametrize(
    ("installed", "severity"), [(None, Severity.ERROR), ("1.29.0", Severity.WARNING)]
)
def test_a_library_that_is_missing_or_another(installed: str | None, severity: Severity) -> None:
    """Both with what mends it."""
    (finding,) = check_libraries([Library("onnxruntime", "==1.32.*", installed)], None)
    assert finding.severity is severity
    assert "install" in finding.advice


def test_a_library_that_ends_the_process() -> None:
    """Built for instructions that this processor lacks."""
    (finding,) = check_libraries([GOOD], "importing them was ended by SIGILL")
    assert finding.severity is Severity.ERROR
    assert "SIGILL" in finding.found


def test_this_installation_is_sound() -> None:
    """What the tests run on is what is asked for, and runs."""
    libraries = read_libraries()
    assert {"onnxruntime", "msgpack", "tokenizers"} <= {library.name for library in libraries}
    assert "torch" not in {library.name for library in libraries}
    assert try_to_import() is None


@pytest.mark.parametrize(
    ("torch", "plan", "slow", "severity"),
    [
        (Torch(None), ON_CPU, [], Severity.OK),
        (Torch("2.13", "12.8", library=True), ON_CPU, [], Severity.OK),
        (Torch(None), ON_CPU, ["electra"], Severity.ERROR),
        (Torch("2.13", library=False), ON_CPU, ["electra"], Severity.ERROR),
        (Torch("2.13", library=True, capability="AVX2"), ON_CPU, ["electra"], Severity.OK),
        (Torch("2.13", library=True, capability="DEFAULT"), ON_CPU, ["e"], Severity.WARNING),
        (Torch("2.13", None, library=True, driver=True), ON_CPU, [], Severity.NOTE),
        (Torch("2.13", "12.8", library=True, driver=True), ON_CUDA, [], Severity.OK),
    ],
)
def test_torch_is_judged_by_who_needs_it(
    torch: Torch, plan: Plan, slow: list[str], severity: Severity
) -> None:
    """Models without a graph here, and CUDA; and that it may use what the processor has."""
    (finding,) = check_torch(torch, plan, HOST, slow)
    assert finding.severity is severity


def test_torch_is_read_without_loading_it() -> None:
    """Its version and what it is built for stand in its files."""
    installed = pytest.importorskip("torch")
    torch = read_torch(needed=False)
    assert torch.version == str(installed.__version__)
    assert torch.cuda == installed.version.cuda
    assert torch.capability is None


@pytest.mark.slow
def test_torch_says_which_instructions_it_uses() -> None:
    """In a process of its own."""
    pytest.importorskip("torch")
    assert read_torch(needed=True).capability


def test_an_artifact_of_another_engine() -> None:
    """Its closeness and speed were measured with that one."""
    (finding,) = check_written_by({"onnxruntime": "1.2.3"}, "m")
    assert finding.severity is Severity.WARNING
    now = next(each.installed for each in read_libraries() if each.name == "onnxruntime")
    (finding,) = check_written_by({"onnxruntime": str(now)}, "m")
    assert finding.severity is Severity.OK
