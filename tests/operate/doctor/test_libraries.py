"""The libraries and torch: missing, of other versions, not for this processor."""

import importlib.util
import runpy
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from sidecar.host import Host
from sidecar.operate.doctor import libraries
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
    (finding,) = check_libraries([Library("numpy", ">=1.26", "2.1"), GOOD], None)
    assert finding.severity is Severity.OK
    assert finding.found == "onnxruntime 1.32.1, and 1 others as required"


@pytest.mark.parametrize(
    ("installed", "severity", "found", "advice"),
    [
        (None, Severity.ERROR, "numpy is not installed", "install Sidecar with its extra `edge`"),
        (
            "1.25.9",
            Severity.WARNING,
            "numpy is 1.25.9, and >=1.26 is asked for",
            "pip install 'numpy>=1.26'",
        ),
    ],
)
def test_a_library_that_is_missing_or_another(
    installed: str | None, severity: Severity, found: str, advice: str
) -> None:
    """Each with what mends it; that the others are well is not said, then."""
    (finding,) = check_libraries([GOOD, Library("numpy", ">=1.26", installed)], None)
    assert (finding.severity, finding.found) == (severity, found)
    assert advice in finding.advice


def test_every_library_that_does_not_fit_is_told() -> None:
    """And why importing them failed, if it did."""
    bad = [Library("a", "", None), GOOD, Library("b", "<2", "2.0")]
    findings = list(check_libraries(bad, "no module named a"))
    assert [finding.found for finding in findings] == [
        "a is not installed",
        "b is 2.0, and <2 is asked for",
        "no module named a",
    ]


def test_a_version_before_the_release_is_one() -> None:
    """A build of one's own, say."""
    (finding,) = check_libraries([Library("onnxruntime", ">=1.30", "1.32.0rc1")], None)
    assert finding.severity is Severity.OK


def test_a_library_that_ends_the_process() -> None:
    """Built for instructions that this processor lacks."""
    (finding,) = check_libraries([GOOD], "importing them was ended by SIGILL")
    assert finding.severity is Severity.ERROR
    assert "SIGILL" in finding.found
    assert "wheels for this processor" in finding.advice


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 4)", "importing them was ended by SIGILL"),
        ("print('x'); raise ImportError('a line\\nlibfoo.so is missing')", "libfoo.so is missing"),
        ("raise SystemExit(3)", "no message"),
        ("print('a warning', file=sys.stderr)", None),
    ],
)
def test_why_importing_them_failed(
    monkeypatch: pytest.MonkeyPatch, code: str, said: str | None
) -> None:
    """By the signal, or by the last line that was said."""
    monkeypatch.setattr(libraries, "_IMPORTED", f"sys; {code}")
    assert try_to_import() == said


def test_they_are_imported_as_a_daemon_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not from the folder that one stands in; nobody is told, and no pool is started."""
    (tmp_path / "msgpack.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # it may be relative
    told = "msgpack, os; print(*map(os.environ.get, %r), file=sys.stderr); sys.exit(1)"
    variables = ("ORT_DISABLE_TELEMETRY", "OMP_NUM_THREADS", "MINE")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("MINE", "2")
    monkeypatch.setattr(libraries, "_IMPORTED", f"sys, {told % (variables,)}")
    assert try_to_import() == "1 1 2"


def test_this_installation_is_sound() -> None:
    """What the tests run on is what is asked for, and runs."""
    asked = read_libraries()
    assert {"onnxruntime", "msgpack", "tokenizers"} <= {library.name for library in asked}
    assert "torch" not in {library.name for library in asked}
    (engine,) = (library for library in asked if library.name == "onnxruntime")
    assert (engine.installed, engine.wanted[:2]) == (onnxruntime.__version__, "==")
    assert try_to_import() is None


def test_what_the_extra_asks_for_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what others do."""
    asked = [
        "always>=1",
        "numpy<9 ; extra == 'edge'",
        "other==2; extra == 'server'",
        "ancient; python_version < '3'",
    ]
    monkeypatch.setattr(metadata, "requires", {"sidecar": asked}.get)
    installed = str(metadata.version("numpy"))
    assert read_libraries() == [Library("always", ">=1", None), Library("numpy", "<9", installed)]
    monkeypatch.setattr(metadata, "requires", lambda _: None)
    assert read_libraries() == []


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
    assert bool(finding.advice) == (severity is not Severity.OK)


FULL = Torch("2.13", "12.8", library=True, capability="AVX2")


@pytest.mark.parametrize(
    ("torch", "plan", "slow", "found"),
    [
        (Torch(None), ON_CPU, [], "torch is not installed; not needed, never loaded"),
        (FULL, ON_CPU, [], "torch 2.13 (CUDA 12.8 build); not needed, never loaded"),
        (FULL, ON_CPU, ["a", "b"], "torch 2.13 (CUDA 12.8 build), needed by a, b"),
        (FULL, ON_CUDA, [], "torch 2.13 (CUDA 12.8 build), needed by the CUDA device"),
        (Torch("2.13", library=True), ON_CPU, ["a"], "torch 2.13 (CPU build), needed by a"),
        (Torch(None, library=True), ON_CPU, ["a", "b"], "a, b needs torch"),
        (Torch(None, library=True), ON_CUDA, [], "the CUDA device needs torch"),
        (replace(FULL, library=False), ON_CPU, ["a"], "a needs sentence-transformers"),
        (
            Torch("2.13", library=True, driver=True),
            ON_CPU,
            ["a"],
            "torch 2.13 (CPU build), and this host has NVIDIA's driver",
        ),
        (
            replace(FULL, driver=True),
            ON_CPU,
            [],
            "torch 2.13 (CUDA 12.8 build); not needed, never loaded",
        ),
        (Torch(None, driver=True), ON_CPU, [], "torch is not installed; not needed, never loaded"),
        (
            Torch("2.13", library=True, driver=True),
            ON_CUDA,
            [],
            "torch 2.13 (CPU build), needed by the CUDA device",
        ),
        (
            replace(FULL, capability="DEFAULT"),
            ON_CPU,
            ["a"],
            "torch 2.13 (CUDA 12.8 build) uses DEFAULT instructions, though the processor has AVX2",
        ),
    ],
)
def test_of_torch_is_told_what_matters(
    torch: Torch, plan: Plan, slow: list[str], found: str
) -> None:
    """Its build, who needs it, and what they lack."""
    (finding,) = check_torch(torch, plan, HOST, slow)
    assert finding.found == found


def test_a_processor_without_avx2_has_no_other_instructions() -> None:
    """It uses what there is."""
    torch, host = replace(FULL, capability="DEFAULT"), replace(HOST, isa=frozenset())
    (finding,) = check_torch(torch, ON_CPU, host, ["a"])
    assert finding.severity is Severity.OK


def test_torch_is_read_without_loading_it() -> None:
    """Its version and what it is built for stand in its files."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        pytest.skip("no torch here")
    stated = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    torch = read_torch(needed=False)
    assert torch.version == stated["__version__"]
    assert torch.cuda == stated["cuda"]
    assert torch.capability is None


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch that is there and tells of itself, and nothing else."""
    package = tmp_path / "torch"
    package.mkdir()
    for name in ("__init__.py", "sentence_transformers.py"):
        (package / name).write_text("raise AssertionError('nobody loads it here')")
    stated = "__version__ = '9.9+cu'\ncuda: Optional[str] = '12.8'\nhip = None\n"
    (package / "version.py").write_text(stated)

    def find(name: str) -> object:
        return SimpleNamespace(origin=str(package / "__init__.py")) if name in there else None

    there = {"torch", "sentence_transformers"}
    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(metadata, "version", {"torch": "9.9"}.get)
    monkeypatch.setattr(libraries, "_DRIVER", tmp_path / "driver")
    monkeypatch.setattr(
        libraries, "_CAPABILITY", "import sys; print(' AVX512 '); print(1, file=sys.stderr)"
    )
    return package


def test_torch_says_which_instructions_it_uses(installed: Path) -> None:
    """Where somebody needs it: it is asked in a process of its own."""
    assert read_torch(needed=True) == Torch("9.9", "12.8", "AVX512", library=True, driver=False)
    assert read_torch(needed=False) == Torch("9.9", "12.8", None, library=True, driver=False)
    (installed.parent / "driver").touch()
    assert read_torch(needed=False).driver


@pytest.mark.slow
def test_a_real_torch_says_which_instructions_it_uses() -> None:
    """By a name that this package knows."""
    pytest.importorskip("torch")
    assert read_torch(needed=True).capability in {"DEFAULT", "AVX2", "AVX512"}


def test_a_torch_without_cuda_has_none(installed: Path) -> None:
    """Its file says so."""
    (installed / "version.py").write_text("cuda: Optional[str] = None\ncuda_x = '3'\n")
    assert read_torch(needed=False).cuda is None


def test_a_host_without_torch(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a driver all the same, or the library."""
    (installed.parent / "driver").touch()
    monkeypatch.setattr(libraries, "_version", lambda _: None)
    assert read_torch(needed=True) == Torch(None, library=True, driver=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert read_torch(needed=True) == Torch(None, library=False, driver=True)


def test_an_artifact_of_another_engine() -> None:
    """Its closeness and speed were measured with that one."""
    now = next(each.installed for each in read_libraries() if each.name == "onnxruntime")
    for versions, then in (({"onnxruntime": "1.2.3"}, "1.2.3"), ({}, "None")):
        (finding,) = check_written_by(versions, "m")
        assert finding.severity is Severity.WARNING
        assert finding.found == f"m was prepared with onnxruntime {then}, and is served with {now}"
        assert "prepare it again" in finding.advice
    (finding,) = check_written_by({"onnxruntime": str(now)}, "m")
    assert finding.severity is Severity.OK
