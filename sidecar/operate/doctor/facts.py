"""All facts to be judged, read once. What cannot be read is None, and a failure says why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from client_lib.address import SYSTEM_SOCKET
from sidecar.config import Config, ConfigError, Setting, read_env_lines, resolve_each, to_config
from sidecar.host import Host, read_host
from sidecar.models.precision import Precision
from sidecar.operate.doctor.access import (
    Folder,
    Place,
    User,
    closed_to_others,
    read_cache,
    read_folder,
    read_place,
    read_user,
)
from sidecar.operate.doctor.daemon import Answer, ask
from sidecar.operate.doctor.finding import Finding
from sidecar.operate.doctor.guard import Guard
from sidecar.operate.doctor.libraries import (
    Library,
    Torch,
    read_intruders,
    read_libraries,
    read_torch,
    try_to_import,
)
from sidecar.operate.doctor.memory import Swap, read_swap
from sidecar.operate.doctor.processor import Usage, read_usage
from sidecar.operate.doctor.units import Systemd, read_systemd, shipped_units
from sidecar.plan import Plan, PlanError

if TYPE_CHECKING:
    from sidecar.models.description import Task
    from sidecar.operate.doctor.models import Found

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What to examine: the settings as given, and how plans are made from them."""

    flags: Mapping[str, str]
    environ: Mapping[str, str]
    env_file: Path | None
    plan: Callable[[Config], tuple[Host, Plan]]
    precision: Callable[[Config, Plan], Precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts; None is what could not be read. `environ` includes the file's variables.

    `plan` is None, and `refusal` says why, if the settings cannot work on this host. `models` is
    None if the libraries that would read them do not run. `closed` is the path that keeps other
    users from reading the settings file.
    """

    settings: Sequence[Setting]
    wrong: Sequence[ConfigError]
    environ: Mapping[str, str]
    config: Config
    host: Host | None
    plan: Plan | None
    refusal: str
    usage: Usage | None
    swap: Swap | None
    libraries: Sequence[Library] | None
    intruders: Sequence[str]
    import_failure: str | None
    torch: Torch | None
    models: "Sequence[Found] | None"
    systemd: Systemd
    shipped: Mapping[str, str]
    user: User
    place: Place | None
    system_place: Place | None
    socket_folder: Folder | None
    cache: Folder | None
    answer: Answer | None
    closed: Path | None
    failures: Sequence[Finding]


def read_facts(case: Case, guard: Guard) -> Facts:
    """Return the facts, each read under `guard`."""
    settings, wrong = resolve_each(case.flags, case.environ, case.env_file)
    config = to_config(settings)
    in_file, _ = read_env_lines(case.env_file) if case.env_file else ({}, [])
    planned = guard.read("plan", _planned, case, config)
    host, plan, refusal = planned or (None, None, "")
    imported = guard.read("libraries", lambda: [try_to_import()])
    models = None
    if plan and imported == [None]:
        models = guard.read("model", _read_models, config, case.precision(config, plan), plan)
    systemd = guard.read("units", read_systemd) or Systemd(0)
    place = guard.read("socket", read_place, config.socket)
    return Facts(
        settings=settings,
        wrong=wrong,
        environ={**in_file, **case.environ},
        config=config,
        host=host,
        plan=plan,
        refusal=refusal,
        usage=guard.read("load", read_usage),
        swap=guard.read("swap", read_swap),
        libraries=guard.read("libraries", read_libraries),
        intruders=guard.read("libraries", read_intruders) or [],
        import_failure=(imported or [None])[0],
        torch=guard.read("torch", lambda: read_torch(needed=_needs_torch(plan, models))),
        models=models,
        systemd=systemd,
        shipped=guard.read("units", shipped_units) or {},
        user=read_user(),
        place=place,
        system_place=guard.read("socket", read_place, SYSTEM_SOCKET),
        socket_folder=guard.read("socket", read_folder, config.socket.parent),
        cache=guard.read("cache", read_cache, config.cache_dir),
        answer=guard.read("daemon", _answer_of, config.socket, place, systemd),
        closed=guard.read("settings", _closed, case.env_file),
        failures=guard.failures,
    )


def _planned(case: Case, config: Config) -> tuple[Host, Plan | None, str]:
    try:
        return *case.plan(config), ""
    except PlanError as refusal:
        return read_host(), None, str(refusal)


def _read_models(config: Config, precision: Precision, plan: Plan) -> "list[Found]":
    # Imported late: they load onnxruntime, which may be what is broken on this host.
    from sidecar.models.library import Wanted  # noqa: PLC0415
    from sidecar.operate.doctor.models import read_model  # noqa: PLC0415

    named: list[tuple[str, Task]] = [(config.embedding_model, "embed")]
    if config.reranker_model is not None:
        named.append((config.reranker_model, "rerank"))
    wanted = [
        Wanted(
            name=name,
            task=task,
            precision=precision,
            reason=plan.reason,
            device=plan.device,
            prompts=config.prompts,
        )
        for name, task in named
    ]
    return [read_model(each, config.cache_dir) for each in wanted]


def _needs_torch(plan: Plan | None, models: "Sequence[Found] | None") -> bool:
    on_cuda = plan is not None and plan.device == "cuda"
    return on_cuda or any(found.slow for found in models or ())


def _answer_of(path: Path, place: Place | None, systemd: Systemd) -> Answer | None:
    """Return the daemon's answer; None if asking is impossible, or would start one."""
    if place is None or not place.may_connect or systemd.waits_at(path):
        return None
    return ask(path)


def _closed(path: Path | None) -> Path | None:
    return closed_to_others(path) if path and path.exists() else None
