"""The libraries: installed, in the required versions, and able to run on this processor."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from client_lib.distribution import CLIENT, DAEMON
from sidecar.host import Host
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning
from sidecar.plan import Plan

_EXTRA = "edge"
_IMPORTED = "msgpack, numpy, onnxruntime, safetensors, structlog, tokenizers, uvloop"
_SECONDS = 60.0
_DRIVER = Path("/proc/driver/nvidia/version")
_CAPABILITY = "import torch; print(torch.backends.cpu.get_cpu_capability())"


@dataclass(frozen=True, slots=True)
class Library:
    """A library that a daemon needs: the versions required, and the one installed, if any."""

    name: str
    wanted: str
    installed: str | None


@dataclass(frozen=True, slots=True)
class Torch:
    """The installed torch: its version, and the CUDA version it is built for, if any.

    `capability` is the instruction set that it uses, if it had to be queried; `library` whether
    sentence-transformers is installed, `driver` whether this host has NVIDIA's driver.
    """

    version: str | None
    cuda: str | None = None
    capability: str | None = None
    library: bool = False
    driver: bool = False


def read_libraries() -> list[Library]:
    """Return the libraries that the client and the daemon's extra `edge` require."""
    lines = [*(metadata.requires(DAEMON) or []), *(metadata.requires(CLIENT) or [])]
    requirements = [Requirement(line) for line in lines]
    return [
        Library(r.name, str(r.specifier), _version(r.name))
        for r in requirements
        if r.marker is None or r.marker.evaluate({"extra": _EXTRA})
    ]


def read_intruders() -> list[str]:
    """Return the other distributions that have installed files into the package `sidecar`.

    An editable installation has no files of its own there.
    """
    return sorted({*metadata.packages_distributions().get("sidecar", [])} - {DAEMON})


def try_to_import() -> str | None:
    """Import all of them in a separate process; return why that failed, or None if it worked.

    A library built for another processor does not raise: it kills the process.
    """
    done = _python(f"import {_IMPORTED}")
    if done.returncode < 0:
        return f"importing them was killed by {signal.Signals(-done.returncode).name}"
    return _last_line(done.stderr) if done.returncode else None


def read_torch(*, needed: bool) -> Torch:
    """Return the facts about torch. If `needed`, import it, in a separate process."""
    version, spec = _version("torch"), importlib.util.find_spec("torch")
    library = importlib.util.find_spec("sentence_transformers") is not None
    if version is None or spec is None or spec.origin is None:
        return Torch(None, library=library, driver=_DRIVER.is_file())
    stated = (Path(spec.origin).parent / "version.py").read_text()
    cuda = re.search(r"^cuda\b.*= '([\d.]+)'", stated, re.MULTILINE)
    capability = _python(_CAPABILITY).stdout.strip() if needed else None
    return Torch(version, cuda and cuda[1], capability, library, _DRIVER.is_file())


def check_libraries(libraries: Sequence[Library], failure: str | None) -> Iterator[Finding]:
    """Whether all that a daemon needs is installed, in the required versions, and runs."""
    bad = list(_unfit(libraries))
    yield from bad
    if failure:
        advice = "install wheels built for this processor and system; SIGILL: it lacks instructions"
        yield error("libraries", failure, advice)
    if not bad and not failure:
        engine = next((x.installed for x in libraries if x.name == "onnxruntime"), None)
        yield ok("libraries", f"onnxruntime {engine}, and {len(libraries) - 1} others as required")


def check_intruders(intruders: Sequence[str]) -> Iterator[Finding]:
    """Whether the package `sidecar` belongs to this project only; another has the same name."""
    for name in intruders:
        advice = f"run `pip uninstall {name}`, then `pip install --force-reinstall {DAEMON}`"
        yield error("libraries", f"{name} has overwritten parts of the package `sidecar`", advice)


def check_torch(torch: Torch, plan: Plan, host: Host, slow: Sequence[str]) -> Iterator[Finding]:
    """Whether torch is installed if it is needed: by models without a graph, or by CUDA."""
    needed = bool(slow) or plan.device == "cuda"
    what = _named(torch)
    if torch.driver and plan.device != "cuda" and torch.version and not torch.cuda:
        advice = "install a CUDA build of torch to serve on the GPU (docs/operations.md)"
        yield note("torch", f"{what}, and this host has NVIDIA's driver", advice)
    elif not needed:
        yield ok("torch", f"{what}; not needed, never loaded")
    elif torch.version is None or not torch.library:
        why = ", ".join(slow) or "the CUDA device"
        lacking = "torch" if torch.version is None else "sentence-transformers"
        yield error("torch", f"{why} needs {lacking}", "install the extra `server`")
    elif torch.capability == "DEFAULT" and "avx2" in host.isa:
        found = f"{what} uses DEFAULT instructions, though the processor has AVX2"
        yield warning("torch", found, "set ProcSubset=all in the unit, unset ATEN_CPU_CAPABILITY")
    else:
        yield ok("torch", f"{what}, needed by {', '.join(slow) or 'the CUDA device'}")


def check_written_by(versions: Mapping[str, str], model: str) -> Iterator[Finding]:
    """Whether a model was prepared and measured with the installed engine."""
    then, now = versions.get("onnxruntime"), _version("onnxruntime")
    if then != now:
        found = f"{model} was prepared with onnxruntime {then}, but is served with {now}"
        advice = "prepare it again: closeness and speed were measured with the other version"
        yield warning("engine", found, advice)
    else:
        yield ok("engine", f"{model} was prepared with onnxruntime {then}, which also serves it")


def _unfit(libraries: Sequence[Library]) -> Iterator[Finding]:
    for each in libraries:
        if each.installed is None:
            advice = f"install Sidecar with its extra `{_EXTRA}` (docs/operations.md)"
            yield error("libraries", f"{each.name} is not installed", advice)
        elif not SpecifierSet(each.wanted).contains(each.installed, prereleases=True):
            found = f"{each.name} is {each.installed}, but {each.wanted} is required"
            advice = f"pip install '{each.name}{each.wanted}'"
            yield warning("libraries", found, advice)


def _named(torch: Torch) -> str:
    if torch.version is None:
        return "torch is not installed"
    return f"torch {torch.version} ({f'CUDA {torch.cuda}' if torch.cuda else 'CPU'} build)"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own code, by this interpreter
        [sys.executable, "-P", "-c", code],
        capture_output=True, text=True, timeout=_SECONDS, check=False,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
