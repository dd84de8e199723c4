"""The import rules: packages only import those below them, and the client stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A package may import itself, the packages below it and the leaves. `serving` and `operate` do not
# import each other.
_LEAVES = {
    "client_lib", "sidecar.defaults", "sidecar.events", "sidecar.files", "sidecar.lines",
    "sidecar.memory", "sidecar.systemd", "sidecar",
}  # fmt: skip
_BELOW = {
    "sidecar.__main__": {"sidecar.cli"},
    "sidecar.cli": {
        "sidecar.serving", "sidecar.gateway", "sidecar.operate", "sidecar.bulk",
        "sidecar.models", "sidecar.encoder", "sidecar.plan", "sidecar.host", "sidecar.config",
    },
    "sidecar.serving": {"sidecar.models", "sidecar.plan", "sidecar.host"},
    "sidecar.gateway": set(),
    "sidecar.operate": {"sidecar.models", "sidecar.plan", "sidecar.host", "sidecar.config"},
    "sidecar.bulk": set(),
    "sidecar.models": {"sidecar.encoder", "sidecar.host"},
    "sidecar.encoder": {"sidecar.host"},
    "sidecar.plan": {"sidecar.host"},
    "sidecar.host": set(),
    "sidecar.config": set(),
    "sidecar.defaults": set(),
    "sidecar.events": set(),
    "sidecar.files": set(),
    "sidecar.lines": set(),
    "sidecar.memory": set(),
    "sidecar.systemd": set(),
    "sidecar": set(),
    "client_lib": set(),
    "client_lib.adapters": {"client_lib"},
    "client_lib.compat": {"client_lib"},
}  # fmt: skip

# The same inside `serving`: its packages and modules. Those not listed are leaves, which any of
# them may import.
_BELOW_IN_SERVING = {
    "process": {
        "transport", "context", "engine", "scheduler", "admission", "telemetry", "settings",
    },
    "transport": {"context", "admission"},
    "context": {"engine", "admission", "telemetry", "memory_accounts", "settings"},
    "memory_accounts": {"admission", "settings"},
    "settings": {"scheduler", "admission"},
    "engine": {"scheduler", "admission", "telemetry"},
    "scheduler": {"admission"},
    "admission": set(),
    "telemetry": set(),
}  # fmt: skip


def room(module: str) -> str:
    """Return the key in `_BELOW` of a module; `client_lib` is one, except for those above it."""
    parts = module.split(".")
    two = ".".join(parts[:2])
    return two if parts[0] == "sidecar" or two in _BELOW else parts[0]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{a.name}" for a in node.names}
                if node.module == "sidecar"
                else {node.module}
            )
    return {name for name in names if name.split(".")[0] in {"sidecar", "client_lib"}}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("sidecar", "client_lib"):
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT).with_suffix("")
            found.append((".".join(relative.parts).removesuffix(".__init__"), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_run_downward(module: str, path: Path) -> None:
    """A module imports only from its own package, packages below it, and leaves."""
    here = room(module)
    allowed = _BELOW[here] | {here} | (_LEAVES if here.startswith("sidecar") else set())
    for name in imported(path):
        there = room(name) if room(name) in _BELOW else "sidecar"
        assert there in allowed, f"{module} imports {name}"


SERVING = [(module, path) for module, path in modules() if module.startswith("sidecar.serving.")]


@pytest.mark.parametrize(("module", "path"), SERVING, ids=[name for name, _ in SERVING])
def test_imports_inside_serving_run_downward(module: str, path: Path) -> None:
    """A module of `serving` imports only from its own package, those below it, and leaves."""
    here = module.split(".")[2]
    allowed = _BELOW_IN_SERVING.get(here, set()) | {here}
    for name in imported(path):
        there = name.removeprefix("sidecar.serving.").split(".")[0]
        if name.startswith("sidecar.serving.") and there in _BELOW_IN_SERVING:
            assert there in allowed, f"{module} imports {name}"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_client_is_light() -> None:
    """Importing the client loads neither the daemon, nor ML libraries, nor frameworks."""
    assert not loaded_by("import client_lib") & {
        "sidecar", "torch", "transformers", "onnx", "onnxruntime", "tokenizers", "structlog",
        "pydantic", "tqdm", "pyarrow", "ray",
    }  # fmt: skip


def test_daemon_needs_no_torch() -> None:
    """Importing the code that prepares and serves models loads neither torch nor transformers."""
    loaded = loaded_by("import sidecar.cli.serve, sidecar.models.prepare")
    assert not loaded & {"torch", "transformers", "sentence_transformers"}


def test_daemon_needs_nothing_of_preparing() -> None:
    """The daemon does not load onnx, which only the preparing subprocess needs."""
    refused = "from sidecar.cli import main; main(['serve', '--threads', 'many'])"
    assert "onnx" not in loaded_by(refused)


def test_gateway_needs_nothing_of_the_daemon() -> None:
    """The gateway loads none of the daemon's libraries, so that its own extra suffices."""
    refused = "from sidecar.cli import main; main(['gateway', '--port', 'any'])"
    loaded = loaded_by(refused)
    assert "uvicorn" in loaded
    assert not loaded & {"onnxruntime", "onnx", "tokenizers", "psutil", "prometheus_client"}


def test_embed_needs_no_parquet() -> None:
    """Importing `sidecar embed` and the Ray actor loads neither Parquet support nor Ray."""
    assert not loaded_by("import sidecar.cli.embed, client_lib.ray") & {"pyarrow", "ray", "pandas"}
