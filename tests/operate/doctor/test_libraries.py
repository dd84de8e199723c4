"""The libraries and torch: missing, of other versions, or not for this processor."""

import importlib.util
import runpy
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from client_lib.distribution import CLIENT, DAEMON
from sidecar.host import Host
from sidecar.operate.doctor import libraries
from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.libraries import (
    Library,
    Torch,
    check_intruders,
    check_libraries,
    check_torch,
    check_written_by,
    read_intruders,
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
    """Fitting libraries are one OK finding that names the version of onnxruntime."""
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
            "numpy is 1.25.9, but >=1.26 is required",
            "pip install 'numpy>=1.26'",
        ),
    ],
)
def test_a_library_that_is_missing_or_another(
    installed: str | None, severity: Severity, found: str, advice: str
) -> None:
    """A missing library is an error and a wrong version a warning, each with the fix."""
    (finding,) = check_libraries([GOOD, Library("numpy", ">=1.26", installed)], None)
    assert (finding.severity, finding.found) == (severity, found)
    assert advice in finding.advice


def test_every_library_that_does_not_fit_is_told() -> None:
    """Every library that does not fit is reported, and so is a failed import."""
    bad = [Library("a", "", None), GOOD, Library("b", "<2", "2.0")]
    findings = list(check_libraries(bad, "no module named a"))
    assert [finding.found for finding in findings] == [
        "a is not installed",
        "b is 2.0, but <2 is required",
        "no module named a",
    ]


def test_a_version_before_the_release_is_one() -> None:
    """A pre-release within the required range is accepted."""
    (finding,) = check_libraries([Library("onnxruntime", ">=1.30", "1.32.0rc1")], None)
    assert finding.severity is Severity.OK


def test_a_library_that_ends_the_process() -> None:
    """A library that kills the process on import is an error that names the signal."""
    (finding,) = check_libraries([GOOD], "importing them was killed by SIGILL")
    assert finding.severity is Severity.ERROR
    assert "SIGILL" in finding.found
    assert "wheels built for this processor" in finding.advice


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 4)", "importing them was killed by SIGILL"),
        ("print('x'); raise ImportError('a line\\nlibfoo.so is missing')", "libfoo.so is missing"),
        ("raise SystemExit(3)", "no message"),
        ("print('a warning', file=sys.stderr)", None),
    ],
)
def test_why_importing_them_failed(
    monkeypatch: pytest.MonkeyPatch, code: str, said: str | None
) -> None:
    """A failed import is explained by its signal, or by the last line on stderr."""
    monkeypatch.setattr(libraries, "_IMPORTED", f"sys; {code}")
    assert try_to_import() == said


def test_they_are_imported_as_a_daemon_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The import ignores the working directory, and runs without telemetry or a thread pool."""
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
    """The libraries of this installation satisfy their requirements and can be imported."""
    asked = read_libraries()
    assert {"onnxruntime", "msgpack", "tokenizers"} <= {library.name for library in asked}
    assert "torch" not in {library.name for library in asked}
    (engine,) = (library for library in asked if library.name == "onnxruntime")
    assert (engine.installed, engine.wanted[:2]) == (onnxruntime.__version__, "==")
    assert try_to_import() is None


def test_what_the_extra_asks_for_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the base requirements and those of the extra `edge` are read."""
    asked = [
        "always>=1",
        "numpy<9 ; extra == 'edge'",
        "other==2; extra == 'server'",
        "ancient; python_version < '3'",
    ]
    monkeypatch.setattr(metadata, "requires", {DAEMON: asked, CLIENT: ["also<3"]}.get)
    installed = str(metadata.version("numpy"))
    assert read_libraries() == [
        Library("always", ">=1", None),
        Library("numpy", "<9", installed),
        Library("also", "<3", None),
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: None)
    assert read_libraries() == []


def test_another_project_of_the_same_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that installs into the package `sidecar` too has to be removed."""
    owners = {"sidecar": ["sidecar", DAEMON, "sidecar"], "other": ["other"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    assert read_intruders() == ["sidecar"]
    (finding,) = check_intruders(["sidecar"])
    assert finding.severity is Severity.ERROR
    assert "pip uninstall sidecar" in finding.advice
    owners["sidecar"] = [DAEMON]
    assert read_intruders() == []
    assert not list(check_intruders([]))


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
    """Torch is required only for models without a graph or for CUDA, and should use AVX2."""
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
    """The finding on torch names its build, what needs it, and what is missing."""
    (finding,) = check_torch(torch, plan, HOST, slow)
    assert finding.found == found


def test_a_processor_without_avx2_has_no_other_instructions() -> None:
    """Torch's DEFAULT instructions are fine on a processor without AVX2."""
    torch, host = replace(FULL, capability="DEFAULT"), replace(HOST, isa=frozenset())
    (finding,) = check_torch(torch, ON_CPU, host, ["a"])
    assert finding.severity is Severity.OK


def test_torch_is_read_without_loading_it() -> None:
    """Torch's version and CUDA version are read from its files, without importing it."""
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
    """A fake torch that has its version files but must not be imported."""
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
    """Torch's instruction set is queried only if needed, in a separate process."""
    assert read_torch(needed=True) == Torch("9.9", "12.8", "AVX512", library=True, driver=False)
    assert read_torch(needed=False) == Torch("9.9", "12.8", None, library=True, driver=False)
    (installed.parent / "driver").touch()
    assert read_torch(needed=False).driver


@pytest.mark.slow
def test_a_real_torch_says_which_instructions_it_uses() -> None:
    """A real torch reports one of the known instruction sets."""
    pytest.importorskip("torch")
    assert read_torch(needed=True).capability in {"DEFAULT", "AVX2", "AVX512"}


def test_a_torch_without_cuda_has_none(installed: Path) -> None:
    """A CPU build of torch has no CUDA version."""
    (installed / "version.py").write_text("cuda: Optional[str] = None\ncuda_x = '3'\n")
    assert read_torch(needed=False).cuda is None


def test_a_host_without_torch(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch, the driver and sentence-transformers are still detected."""
    (installed.parent / "driver").touch()
    monkeypatch.setattr(libraries, "_version", lambda _: None)
    assert read_torch(needed=True) == Torch(None, library=True, driver=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert read_torch(needed=True) == Torch(None, library=False, driver=True)


def test_an_artifact_of_another_engine() -> None:
    """An artifact prepared with another onnxruntime is a warning."""
    now = next(each.installed for each in read_libraries() if each.name == "onnxruntime")
    for versions, then in (({"onnxruntime": "1.2.3"}, "1.2.3"), ({}, "None")):
        (finding,) = check_written_by(versions, "m")
        assert finding.severity is Severity.WARNING
        assert finding.found == f"m was prepared with onnxruntime {then}, but is served with {now}"
        assert "prepare it again" in finding.advice
    (finding,) = check_written_by({"onnxruntime": str(now)}, "m")
    assert finding.severity is Severity.OK
