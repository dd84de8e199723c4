"""The examination: the checks in order, grouped by the symptom that they explain."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeAlias

from sidecar.config import Config
from sidecar.operate.doctor import access, daemon, libraries, memory, processor, settings, units
from sidecar.operate.doctor.facts import Case, Facts, read_facts
from sidecar.operate.doctor.finding import Finding, Section, error, note
from sidecar.operate.doctor.guard import Guard
from sidecar.operate.doctor.served import (
    Served,
    check_accuracy,
    check_prompts,
    check_quantization,
    check_verified,
)

Check: TypeAlias = tuple[str, Callable[[], Iterable[Finding]]]
_SECONDS = 60.0


def examine(case: Case) -> list[Section]:
    """Return all findings, by symptom. Raises nothing, changes nothing, finishes in minutes."""
    guard = Guard(_SECONDS)
    facts = read_facts(case, guard)
    unread = list(guard.failures)
    symptoms = (
        ("It does not start, or crashes at start", _starting),
        ("It cannot be reached, or does not answer", _answering),
        ("Quantization is not applied", _quantized),
        ("It is slower than expected", _fast),
        ("Accuracy is lost", _accurate),
    )
    sections = [
        Section(symptom, tuple(f for name, step in checks(facts) for f in guard.judge(name, step)))
        for symptom, checks in symptoms
    ]
    return [Section("It could not be examined", tuple(unread)), *sections] if unread else sections


def _starting(facts: Facts) -> Iterator[Check]:
    config, models, cache = facts.config, facts.models, facts.cache
    sources = {setting.field.name: setting.source for setting in facts.settings}
    yield "settings", partial(settings.check_values, facts.settings, facts.wrong)
    yield "settings", partial(settings.check_names, facts.environ)
    yield "settings", partial(settings.check_contradictions, config, sources)
    if facts.systemd.installed:
        yield "settings", partial(access.check_open, "settings", facts.closed)
    if facts.refusal:
        yield "plan", partial(_refused, facts.refusal)
    yield "libraries", partial(libraries.check_intruders, facts.intruders)
    if facts.libraries is not None:
        checked = partial(libraries.check_libraries, facts.libraries, facts.import_failure)
        yield "libraries", checked
    if models is not None:
        from sidecar.operate.doctor.models import (  # noqa: PLC0415 - see facts.py
            check_limit,
            check_model,
        )

        for found in models:
            yield "model", partial(check_model, found)
            yield "model", partial(check_limit, found, config.max_tokens)
            if facts.systemd.installed:
                yield "model", partial(access.check_open, "model", found.closed)
        unprepared = sum(model.unprepared_bytes for model in models)
        if cache is not None:
            yield "cache", partial(access.check_cache, cache, unprepared)
    yield "memory", partial(_memory, facts)
    yield "units", partial(units.check_units, facts.systemd, facts.shipped)


def _answering(facts: Facts) -> Iterator[Check]:
    place, folder, answer = facts.place, facts.socket_folder, facts.answer
    if place is not None:
        yield "socket", partial(access.check_place, place, facts.user, facts.system_place)
        if folder is not None:
            yield "socket", partial(access.check_socket_folder, folder, place)
    yield "allow-lists", partial(access.check_allowed, facts.config, facts.user)
    if facts.systemd.waits_at(facts.config.socket):
        yield "daemon", _socket_activated
    if answer is None:
        return
    yield "daemon", partial(daemon.check_answer, answer)
    if answer.status is not None:
        yield "requests", partial(daemon.check_requests, answer.status.get("requests") or {})


def _quantized(facts: Facts) -> Iterator[Check]:
    plan = facts.plan
    if plan is None:
        return
    for served in _served(facts):
        yield "quantization", partial(check_quantization, served, plan.quantization)


def _fast(facts: Facts) -> Iterator[Check]:
    host, usage, plan, torch = facts.host, facts.usage, facts.plan, facts.torch
    if host is not None and usage is not None:
        yield "cores", partial(processor.check_cores, host, usage)
        yield "load", partial(processor.check_load, usage)
    if host is not None:
        yield "instructions", partial(processor.check_instructions, host)
    if host is not None and plan is not None:
        yield "threads", partial(processor.check_threads, plan, host, facts.environ)
        slow = [model.name for model in facts.models or () if model.slow]
        if torch is not None:
            yield "torch", partial(libraries.check_torch, torch, plan, host, slow)
    if (swap := facts.swap) is not None:
        yield "swap", partial(memory.check_swap, swap)
    if facts.answer is not None and (status := facts.answer.status) is not None:
        yield "queue", partial(daemon.check_queue, status.get("queue") or {})
        yield "speed", partial(_speed, facts)
        if plan is not None:
            yield "threads", partial(daemon.check_same_threads, status, plan)


def _accurate(facts: Facts) -> Iterator[Check]:
    for served in _served(facts):
        yield "verification", partial(check_verified, served)
        yield "accuracy", partial(check_accuracy, served)
    for name, missing in _without_prompts(facts):
        yield "prompts", partial(check_prompts, name, missing)
    for found in facts.models or ():
        if found.manifest is not None:
            versions, name = found.manifest.versions, found.manifest.name
            yield "engine", partial(libraries.check_written_by, versions, name)


def _refused(refusal: str) -> Iterator[Finding]:
    yield error("plan", refusal, "until this is fixed, the daemon exits with 78")


def _socket_activated() -> Iterator[Finding]:
    found = "systemd listens, and starts a daemon for the first client; this check does not connect"
    yield note("daemon", found)


def _memory(facts: Facts) -> Iterator[Finding]:
    limit, source = facts.systemd.memory_max(), "MemoryMax of the unit"
    if limit is None and facts.host is not None:
        limit, source = facts.host.memory_bytes, "this host"
    if limit is None:
        return
    if facts.models is not None and facts.plan is not None:
        quantization = facts.plan.quantization
        weights = [model.weights(quantization) for model in facts.models if not model.problem]
        needed = memory.needed_bytes(weights) + facts.config.cache_bytes
        yield from memory.check_memory(limit, source, needed, facts.config)
        unprepared = [model.unprepared_bytes for model in facts.models if model.unprepared_bytes]
        yield from memory.check_preparing(limit, source, unprepared)
    if facts.answer is not None and facts.answer.status is not None:
        yield from daemon.check_resident(facts.answer.status.get("memory") or {}, limit)


def _served(facts: Facts) -> list[Served]:
    """Return the models as the daemon serves them or, if none answers, as they are prepared."""
    if facts.answer is not None and facts.answer.status is not None:
        described = list(facts.answer.status.get("models") or ())
    else:
        whole = [each for each in facts.models or () if not each.damage and not each.refusals]
        described = [asdict(found.manifest) for found in whole if found.manifest]
    return [Served.of(each, _floor(each, facts.config)) for each in described]


def _floor(model: Mapping[str, Any], config: Config) -> float:
    """Return a model's minimum closeness; after a fallback to FP32, the floor that it missed."""
    quantization = model.get("quantization")
    tried = model.get("requested") if quantization == "none" else quantization
    return config.int4_floor if tried == "int4" else config.int8_floor


def _without_prompts(facts: Facts) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the models with their missing prompts, as served or as they would be."""
    if facts.answer is not None and facts.answer.status is not None:
        for model in facts.answer.status.get("models") or ():
            yield str(model.get("name")), model.get("prompts_missing") or ()
        return
    for found in facts.models or ():
        yield found.name, found.missing


def _speed(facts: Facts) -> Iterator[Finding]:
    assert facts.answer is not None
    assert facts.answer.status is not None
    from sidecar.operate.doctor.models import probe_lengths  # noqa: PLC0415 - see facts.py

    costs = facts.answer.status.get("costs") or {}
    for found in facts.models or ():
        if found.manifest is None or found.manifest.name not in costs:
            continue
        measured = found.manifest.speed.get(found.manifest.quantization)
        if measured is not None:
            name = found.manifest.name
            yield from daemon.check_speed(name, costs[name], measured, probe_lengths(found))
