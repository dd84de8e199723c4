"""The facts that are read of a host; those that cannot be read are None and reported."""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import Config
from sidecar.host import Host, read_host
from sidecar.models.library import Wanted
from sidecar.models.precision import Precision
from sidecar.operate.doctor import facts, models
from sidecar.operate.doctor.access import Folder, Place, User
from sidecar.operate.doctor.daemon import Answer
from sidecar.operate.doctor.facts import Case, Facts, read_facts
from sidecar.operate.doctor.guard import Guard
from sidecar.operate.doctor.libraries import Library, Torch
from sidecar.operate.doctor.memory import Swap
from sidecar.operate.doctor.models import Found
from sidecar.operate.doctor.processor import Usage
from sidecar.operate.doctor.units import Systemd
from sidecar.plan import Plan, PlanError

PLAN = Plan("int4", "as it is configured", 4, 7, "cpu")
PRECISION = Precision("int4", weight_bits=7, floor=0.97)
HOST = Host(cores=4, memory_bytes=10**9, isa=frozenset(), cpu_model="CPU", cuda=None)
Examined = Callable[..., Facts]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Examined:
    """Return a function that reads the facts of a stubbed host, without delays."""
    for name, value in (
        ("try_to_import", None),
        ("read_libraries", [Library("a", "", "1")]),
        ("read_intruders", ["sidecar"]),
        ("read_swap", Swap(7, 3)),
        ("read_usage", Usage(4, 4, 0.5, 0.0)),
        ("read_systemd", Systemd(0)),
        ("shipped_units", {"sidecar.service": ""}),
        ("read_user", User(7, frozenset({8}))),
    ):
        monkeypatch.setattr(facts, name, lambda value=value: value)
    monkeypatch.setattr(facts, "read_torch", lambda *, needed: Torch("9", capability=str(needed)))
    monkeypatch.setattr(models, "read_model", lambda wanted, _: Found(name=wanted.name))

    def examined(
        env_file: Path | None = None, environ: dict[str, str] | None = None, **case: Any
    ) -> Facts:
        flags = {
            "socket": str(tmp_path / "s"),
            "cache_dir": str(tmp_path / "c"),
            **case.pop("flags", {}),
        }
        fields: dict[str, Any] = {
            "plan": lambda _: (HOST, PLAN), "precision": lambda *_: PRECISION, **case,
        }  # fmt: skip
        environ = environ or {}
        return read_facts(
            Case(flags=flags, environ=environ, env_file=env_file, **fields), Guard(60)
        )

    return examined


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_every_fact_is_where_it_belongs(read: Examined, tmp_path: Path) -> None:
    """Every fact is read into its own field, and a readable host has no failures."""
    read_all = read()
    assert (read_all.host, read_all.plan, read_all.refusal) == (HOST, PLAN, "")
    assert read_all.usage == Usage(4, 4, 0.5, 0.0)
    assert read_all.swap == Swap(7, 3)
    assert read_all.libraries == [Library("a", "", "1")]
    assert read_all.import_failure is None
    assert read_all.torch == Torch("9", capability="False")
    assert read_all.shipped == {"sidecar.service": ""}
    assert read_all.user == User(7, frozenset({8}))
    assert read_all.place == Place(tmp_path / "s", "nothing")
    assert read_all.system_place is not None
    assert read_all.system_place.path == Path("/run/sidecar/sidecar.sock")
    assert isinstance(read_all.socket_folder, Folder)
    assert read_all.socket_folder.path == tmp_path
    assert isinstance(read_all.cache, Folder)
    assert read_all.cache.path == tmp_path / "c"
    assert (read_all.answer, read_all.closed) == (None, None)
    assert list(read_all.failures) == []


def test_settings_come_from_flags_the_environment_and_the_file(
    read: Examined, tmp_path: Path
) -> None:
    """Flags override the environment, which overrides the file and includes its variables."""
    file = tmp_path / "env"
    lines = ["SIDECAR_THREADS=5", "SIDECAR_MAX_INPUTS=5", "QUANTIZATION_CONFIG=int4", "OTHER=5"]
    file.write_text("\n".join([*lines, "SIDECAR_HANG_SECONDS=soon", ""]))
    environ = {"SIDECAR_THREADS": "6", "SIDECAR_MAX_INPUTS": "6", "OTHER": "6", "MORE": "6"}
    read_all = read(file, environ, flags={"threads": "7"})
    config = read_all.config
    assert (config.threads, config.max_inputs, config.quantization) == (7, 6, "int4")
    (wrong,) = read_all.wrong
    assert str(wrong).startswith("SIDECAR_HANG_SECONDS=soon")
    assert {setting.field.name: setting.source for setting in read_all.settings}[
        "threads"
    ] == "flag"
    assert read_all.environ["OTHER"] == read_all.environ["MORE"] == "6"
    assert read_all.environ["QUANTIZATION_CONFIG"] == "int4"


def test_a_file_that_others_cannot_read_is_known(read: Examined, tmp_path: Path) -> None:
    """A settings file closed to other users is found; a missing one is a wrong setting."""
    file = tmp_path / "env"
    file.write_text("")
    file.chmod(0o600)
    closed = read(file).closed
    assert closed is not None
    assert file.is_relative_to(closed)
    read_all = read(tmp_path / "none")
    assert read_all.closed is None
    assert [str(wrong)[:10] for wrong in read_all.wrong] == ["--env-file"]


def test_settings_that_cannot_work_here(read: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the settings cannot work here, the host is read, but no models are."""
    monkeypatch.setattr(facts, "read_host", lambda: HOST)
    read_all = read(plan=raising(PlanError("fp16 needs a CUDA device")))
    assert (read_all.host, read_all.plan, read_all.models) == (HOST, None, None)
    assert read_all.refusal == "fp16 needs a CUDA device"
    assert read_all.torch == Torch("9", capability="False")
    assert list(read_all.failures) == []


def test_a_host_that_cannot_be_read(read: Examined) -> None:
    """An error while planning is a failure, not a refusal."""
    read_all = read(plan=raising(OSError("too many open files")))
    assert (read_all.host, read_all.plan, read_all.refusal) == (None, None, "")
    assert [failure.check for failure in read_all.failures] == ["plan"]


@pytest.mark.parametrize(
    ("name", "check", "field"),
    [
        ("read_usage", "load", "usage"),
        ("read_swap", "swap", "swap"),
        ("read_libraries", "libraries", "libraries"),
        ("read_torch", "torch", "torch"),
        ("read_place", "socket", "place"),
        ("read_place", "socket", "system_place"),
        ("read_folder", "socket", "socket_folder"),
        ("read_cache", "cache", "cache"),
        ("_read_models", "model", "models"),
        ("try_to_import", "libraries", "import_failure"),
    ],
)
def test_what_cannot_be_read_is_missing_and_said(
    read: Examined, monkeypatch: pytest.MonkeyPatch, name: str, check: str, field: str
) -> None:
    """A fact that cannot be read is None and a failure of its check; the others are read."""
    monkeypatch.setattr(facts, name, raising(OSError("a dead disk")))
    read_all = read()
    assert getattr(read_all, field) is None
    assert {failure.check for failure in read_all.failures} == {check}
    assert all("a dead disk" in failure.found for failure in read_all.failures)
    assert read_all.host == HOST


def test_units_that_cannot_be_read(read: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that cannot be read count as missing, and are a failure."""
    for name, field, none in (
        ("read_systemd", "systemd", Systemd(0)),
        ("shipped_units", "shipped", {}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(facts, name, raising(TimeoutError("systemctl")))
            read_all = read()
        assert getattr(read_all, field) == none
        assert [failure.check for failure in read_all.failures] == ["units"]


def test_libraries_that_end_their_process_are_not_imported(
    read: Examined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models are not read if their libraries kill the importing process."""
    monkeypatch.setattr(facts, "try_to_import", lambda: "killed by SIGILL")
    monkeypatch.setattr(facts, "_read_models", raising(AssertionError("they were loaded")))
    read_all = read()
    assert read_all.import_failure == "killed by SIGILL"
    assert read_all.models is None
    assert list(read_all.failures) == []


def test_models_are_looked_for_as_the_daemon_would(
    read: Examined, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Models are read with the settings and cache of the daemon, a reranker only if set."""
    asked: list[tuple[Wanted, Path]] = []

    def look(wanted: Wanted, cache: Path) -> Found:
        asked.append((wanted, cache))
        return Found(name=wanted.name)

    monkeypatch.setattr(models, "read_model", look)
    flags = {"embedding_model": "a", "prompts": "auto"}
    embedder = Wanted(
        name="a", task="embed", precision=PRECISION, reason="as it is configured", device="cpu",
        prompts="auto",
    )  # fmt: skip
    assert read(flags=flags).models == [Found(name="a")]
    assert asked == [(embedder, tmp_path / "c")]
    given: list[tuple[Config, Plan]] = []

    def precision(config: Config, plan: Plan) -> Precision:
        given.append((config, plan))
        return PRECISION

    plan = replace(PLAN, device="cuda")
    read_all = read(
        flags={**flags, "reranker_model": "b"}, plan=lambda _: (HOST, plan), precision=precision
    )
    assert read_all.models == [Found(name="a"), Found(name="b")]
    on_cuda = replace(embedder, device="cuda")
    assert [wanted for wanted, _ in asked[1:]] == [
        on_cuda, replace(on_cuda, name="b", task="rerank"),
    ]  # fmt: skip
    assert given == [(read_all.config, plan)]


@pytest.mark.parametrize(
    ("slow", "device", "needed"),
    [("", "cpu", False), ("albert", "cpu", True), ("", "cuda", True)],
)
def test_torch_is_asked_where_somebody_needs_it(
    read: Examined, monkeypatch: pytest.MonkeyPatch, slow: str, device: str, needed: bool
) -> None:
    """Torch's instruction set is queried only for a model without a graph, or on CUDA."""
    found = Found(name="m", slow=slow)
    monkeypatch.setattr(models, "read_model", lambda *_: found)
    read_all = read(plan=lambda _: (HOST, replace(PLAN, device=device)))
    assert read_all.torch == Torch("9", capability=str(needed))


def test_a_daemon_is_asked_where_that_starts_none(
    read: Examined, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The daemon is asked only if this user may connect and that would not start one."""
    answer, asked = Answer({"pid": 7}), []

    def ask(path: Path) -> Answer:
        asked.append(path)
        return answer

    monkeypatch.setattr(facts, "ask", ask)
    assert read().answer is None
    path = tmp_path / "s"
    waits = {"Id": "sidecar.socket", "SubState": "listening", "Listen": f"{path} (Stream)"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert read().answer == answer
        assert asked == [path]
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda *_, **__: False)
            assert read().answer is None
        monkeypatch.setattr(facts, "read_systemd", lambda: Systemd(252, [waits]))
        assert read().answer is None
    assert asked == [path]


def test_this_host_is_planned_for(read: Examined) -> None:
    """The plan is made by the given function, from the resolved configuration."""
    plans: list[Config] = []

    def plan(config: Config) -> tuple[Host, Plan]:
        plans.append(config)
        return read_host(), PLAN

    read_all = read(plan=plan)
    assert plans == [read_all.config]
    assert read_all.host == read_host()
