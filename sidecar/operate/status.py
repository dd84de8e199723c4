"""A daemon's `status` as a page: sections of short texts for the caller to print. Pure.

The page fits into 80 columns. A key that an older daemon does not send leaves its cell empty.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sidecar.models.prompts import goes_without
from sidecar.operate.units import count, duration, milliseconds, size

Status: TypeAlias = Mapping[str, Any]

_SERVES = {"serving", "reloading"}
_PEERS_SHOWN = 8
_MODELS = ("", "task", "precision", "weights", "closeness to FP32")
_TIMES = ("", "requests", "queue", "compute", "total")
_WAITING = ("", "texts", "tokens", "work", "of the limit")
_BATCHES = ("", "batches", "share by number of texts", "tokens p50 p99")
_PEERS = ("process", "user", "connections")
_BOUNDED = ("rows", "tokens", "bytes")
_PHASES = ("queue_ms", "compute_ms", "total_ms")


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a title; without `columns`, each row is a name and its value."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rates:
    """A daemon's work per second; `cores` is how many of them it kept busy."""

    requests: float
    texts: float
    tokens: float
    cores: float


def is_well(status: Status) -> bool:
    """Whether the daemon is healthy and accepts requests."""
    return bool(status.get("healthy")) and status.get("state") in _SERVES


def rates(before: Status, after: Status) -> Rates | None:
    """Return the work per second between two statuses; None if they are of different daemons."""
    seconds = after.get("up_seconds", 0.0) - before.get("up_seconds", 0.0)
    if (before.get("pid"), before.get("since")) != (after.get("pid"), after.get("since")):
        return None
    if seconds <= 0:
        return None
    old, new = _work(before), _work(after)
    return Rates(*((b - a) / seconds for a, b in zip(old, new, strict=True)))


def page(status: Status) -> list[Section]:
    """Return all sections, the most important first."""
    return _filled(
        Section("Daemon", tuple(_daemon(status))),
        Section("Models", tuple(_models(status)), _MODELS),
        Section("Reasons", tuple(_reasons(status))),
        Section("Verified", tuple(_verifications(status))),
        Section("Missing prompts", tuple(_without_prompts(status))),
        _recent(status),
        Section("Since start, ms: p50 p95 p99", tuple(_times(_since_start(status))), _TIMES),
        Section("Waiting", tuple(_waiting(status)), _WAITING),
        Section("Batches since start", tuple(_batches(status)), _BATCHES),
        Section("Peers", tuple(_peers(status)), _PEERS),
    )


def live_page(status: Status, now: Rates | None) -> list[Section]:
    """Return what changes first, for small terminals; `now` is None until it is known."""
    return _filled(
        Section("Daemon", (*_daemon(status), *_now(now))),
        _recent(status),
        Section("Waiting", tuple(_waiting(status)), _WAITING),
        Section("Batches since start", tuple(_batches(status)), _BATCHES),
        Section("Peers", tuple(_peers(status)), _PEERS),
        Section("Models", tuple(_models(status)), _MODELS),
    )


def _filled(*sections: Section) -> list[Section]:
    return [section for section in sections if section.rows]


def _recent(status: Status) -> Section:
    statistics = status.get("statistics", {})
    minutes = statistics.get("recent_seconds", 0) / 60
    rows = tuple(_times(statistics.get("recent", {})))
    return Section(f"Last {minutes:.0f} minutes, ms: p50 p95 p99", rows, _TIMES)


def _daemon(status: Status) -> Iterator[tuple[str, str]]:
    health = "healthy" if status.get("healthy") else "NOT HEALTHY: inference makes no progress"
    yield f"Sidecar {status.get('version', '?')}", f"{status.get('state', '?')}, {health}"
    up = duration(status.get("up_seconds", 0.0))
    yield "up", f"{up}, since {_moment(status.get('since'))}, pid {status.get('pid', '?')}"
    yield "socket", str(status.get("socket", "?"))
    yield "memory", _memory(status.get("memory", {}))
    yield "threads", f"{status.get('threads', '?')} for inference"
    yield "requests", _requests(status.get("requests", {}))
    for lane, codes in _since_start(status).get("not_admitted", {}).items():
        yield f"{lane} refused", _by_code(codes)
    refused = _since_start(status).get("refused", {})
    if refused:
        yield "turned away", _by_code(refused)
    yield "texts", _texts(status)
    cache = status.get("cache", {})
    if cache.get("max_bytes"):
        yield "cache", _cache(cache)


def _now(now: Rates | None) -> Iterator[tuple[str, str]]:
    if now is not None:
        work = f"{now.texts:,.1f} texts/s, {now.tokens:,.0f} tokens/s"
        yield "now", f"{work}, {now.requests:,.1f} requests/s, {now.cores:.1f} cores busy"


def _models(status: Status) -> Iterator[tuple[str, ...]]:
    for model in status.get("models", []):
        yield (
            model.get("name", "?"),
            model.get("task", "?"),
            _precision(model),
            _weights(model),
            _closeness(model.get("quality")),
        )


def _reasons(status: Status) -> Iterator[tuple[str, ...]]:
    for model in status.get("models", []):
        if reason := model.get("reason"):
            yield model.get("name", "?"), reason
        limit, own = model.get("max_tokens"), model.get("model_max_tokens")
        if own and limit != own:
            cut = f"SIDECAR_MAX_TOKENS truncates texts at {limit} tokens; the model takes {own}"
            yield model.get("name", "?"), cut


def _verifications(status: Status) -> Iterator[tuple[str, ...]]:
    for model in status.get("models", []):
        yield model.get("name", "?"), _verified(model.get("verified"))


def _verified(proof: Mapping[str, Any] | None) -> str:
    if not proof:
        return "NO: nothing proves that it matches sentence-transformers"
    version = proof.get("versions", {}).get("sentence-transformers", "?")
    least, error = proof.get("cosine_min"), proof.get("score_error_max")
    figure = f"cosine {least:.6f}" if least is not None else f"scores within {error:.0e}"
    return f"as sentence-transformers {version}: {proof.get('texts', '?')} texts, {figure}"


def _without_prompts(status: Status) -> Iterator[tuple[str, ...]]:
    for model in status.get("models", []):
        if roles := model.get("prompts_missing"):
            yield model.get("name", "?"), f"{goes_without(roles)}; set SIDECAR_PROMPTS=auto"


def _times(period: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for op, lanes in period.get("requests", {}).items():
        for lane, answered in lanes.items():
            spread = (_spread(answered[phase]) for phase in _PHASES)
            yield (f"{op} {lane}", count(answered["completed"]), *spread)


def _waiting(status: Status) -> Iterator[tuple[str, ...]]:
    lanes = dict(status.get("queue", {}))
    bounds = lanes.pop("bounds", {})
    for lane, load in lanes.items():
        shares = [load[unit] / bounds[unit] for unit in _BOUNDED if unit in bounds]
        yield lane, *_load(load), f"{max(shares, default=0):.0%}"
        peers = sorted(load["peers"].items(), key=lambda peer: -peer[1]["cost_ms"])
        for peer, own in peers[:_PEERS_SHOWN]:
            yield f"  {peer}", *_load(own), ""


def _load(load: Mapping[str, Any]) -> tuple[str, str, str]:
    return count(load["rows"]), count(load["tokens"]), duration(load["cost_ms"] / 1000)


def _batches(status: Status) -> Iterator[tuple[str, ...]]:
    for lane, batches in _since_start(status).get("batches", {}).items():
        rows, tokens = batches["rows"], batches["tokens"]
        yield (
            lane,
            count(rows["count"]),
            _shares(rows),
            f"{tokens['p50']:.0f} {tokens['p99']:.0f}",
        )


def _peers(status: Status) -> Iterator[tuple[str, ...]]:
    peers = sorted(status.get("peers", []), key=lambda peer: -peer["connections"])
    for peer in peers[:_PEERS_SHOWN]:
        yield f"pid {peer['pid']}", f"uid {peer['uid']}", str(peer["connections"])
    if len(peers) > _PEERS_SHOWN:
        yield f"and {len(peers) - _PEERS_SHOWN} more", "", ""


def _work(status: Status) -> tuple[float, float, float, float]:
    """Return requests, texts, tokens and CPU seconds since the start."""
    answered = list(_answered(status))
    return (
        sum(each["completed"] for each in answered),
        sum(each["texts"] for each in answered),
        sum(each["tokens"] for each in answered),
        status.get("process", {}).get("cpu_seconds", 0.0),
    )


def _answered(status: Status) -> Iterator[Mapping[str, Any]]:
    for lanes in _since_start(status).get("requests", {}).values():
        yield from lanes.values()


def _since_start(status: Status) -> Mapping[str, Any]:
    since_start: Mapping[str, Any] = status.get("statistics", {}).get("since_start", {})
    return since_start


def _memory(memory: Mapping[str, Any]) -> str:
    start = memory.get("at_start", {})
    return (
        f"{size(memory.get('pss_bytes'))} PSS, {size(memory.get('rss_bytes'))} RSS; "
        f"{size(start.get('pss_bytes'))} PSS at the start"
    )


def _requests(requests: Mapping[str, Any]) -> str:
    failed = requests.get("failed", {})
    counted = (
        f"{requests.get('completed', 0):,} completed, {requests.get('in_flight', 0)} in flight"
    )
    return f"{counted}, failed: {_by_code(failed)}" if failed else f"{counted}, none failed"


def _texts(status: Status) -> str:
    done = list(_answered(status))
    texts, tokens, shared, cached = (
        sum(each.get(key, 0) for each in done) for key in ("texts", "tokens", "shared", "cached")
    )
    reused = f"{count(shared)} shared a computation, {count(cached)} cached"
    return f"{count(texts)} with {count(tokens)} tokens; {reused}"


def _cache(cache: Mapping[str, Any]) -> str:
    asked = cache["hits"] + cache["misses"]
    held = f"{size(cache['bytes'])} of {size(cache['max_bytes'])} hold {cache['rows']:,} texts"
    return f"{held}, {cache['hits'] / asked:.0%} of {asked:,} look-ups hit" if asked else held


def _by_code(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {number:,}" for code, number in codes.items())


def _precision(model: Mapping[str, Any]) -> str:
    quantization = model.get("quantization", "?")
    return "FP32" if quantization == "none" else str(quantization)


def _weights(model: Mapping[str, Any]) -> str:
    before, after = model.get("bytes_fp32"), model.get("bytes_weights")
    return size(after) if before in {None, after} else f"{size(before)} → {size(after)}"


def _closeness(quality: Mapping[str, Any] | None) -> str:
    return f"{quality['mean']:.4f}, worst {quality['min']:.4f}" if quality else ""


def _spread(times: Mapping[str, Any]) -> str:
    return " ".join(milliseconds(times[name]) for name in ("p50", "p95", "p99"))


def _shares(rows: Mapping[str, Any]) -> str:
    """Return the batch sizes in percent, in the power-of-two buckets of `rows`."""
    return ", ".join(
        f"{_range(int(bound))}: {number / rows['count']:.0%}" for bound, number in rows["buckets"]
    )


def _range(bound: int) -> str:
    least = bound // 2 + 1
    return str(bound) if least >= bound else f"{least}-{bound}"


def _moment(since: str | None) -> str:
    return f"{datetime.fromisoformat(since):%Y-%m-%d %H:%M:%S %Z}" if since else "?"
