"""The daemon, judged by its answer to `status`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_lib import Client, Draining, Forbidden, SidecarError, UntrustedDaemon
from sidecar.models.manifest import Speed
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning
from sidecar.plan import Plan

_SECONDS = 5.0
# By default, a single process may fill three eighths of the queue.
_FULL = 0.3
_SLOWER = 2.0
_CLOSE = 0.9
# Clients retry these on their own.
_PASSING = {"draining"}
# Advice on requests that ended with these codes; the others are the callers' own errors.
_ADVICE = {
    "backend_failed": "the model failed: `request.failed` events have the traceback",
    "overloaded": "requests outpace computation: add cores, send fewer texts, or use priority=bulk",
    "deadline_exceeded": "callers' timeouts are shorter than the queue: add cores, or raise them",
    "forbidden": "SIDECAR_ALLOW_USERS and SIDECAR_ALLOW_GROUPS do not admit the caller",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The daemon's status, or why there is none."""

    status: Mapping[str, Any] | None
    problem: Exception | None = None


def ask(path: Path) -> Answer:
    """Return the answer of the daemon at `path`; wait for 5 seconds at most."""
    try:
        with Client(path, timeout=_SECONDS, retries=False) as client:
            return Answer(client.status())
    except SidecarError as problem:
        return Answer(None, problem)


def check_answer(answer: Answer) -> Iterator[Finding]:
    """Whether something answers, and is a healthy daemon."""
    status, problem = answer.status, answer.problem
    if status is not None:
        found = (
            f"version {status.get('version')}, pid {status.get('pid')}, {status.get('state')}, "
            f"up for {status.get('up_seconds', 0):,.0f} s"
        )
        if status.get("healthy", True):
            yield ok("daemon", found)
        else:
            advice = "inference makes no progress; the daemon will exit soon, or kill it"
            yield error("daemon", f"{found}, not healthy", advice)
        return
    cause = problem.__cause__ if problem else None
    if isinstance(cause, FileNotFoundError):
        advice = "start one with `systemctl start sidecar` or `sidecar serve`"
        yield note("daemon", "not running", advice)
    elif isinstance(cause, ConnectionRefusedError):
        advice = "start one, which replaces it: `systemctl start sidecar.socket` or `sidecar serve`"
        yield warning("daemon", "the socket is stale: nothing listens on it", advice)
    elif isinstance(cause, BlockingIOError):
        advice = "it hangs or is overloaded: look for `worker.hung` events, and restart it"
        yield error("daemon", "the socket's backlog is full: connections are not accepted", advice)
    elif isinstance(problem, Forbidden):
        yield warning("daemon", f"access denied: {problem}", _ADVICE["forbidden"])
    elif isinstance(problem, UntrustedDaemon):
        advice = "see who listens with `ss -xlp`; if that user is right, set SIDECAR_DAEMON_USER"
        yield error("daemon", f"it belongs to another user: {problem}", advice)
    elif isinstance(problem, Draining):
        yield note("daemon", "it is shutting down; the next one will answer", "try again soon")
    elif isinstance(problem, TimeoutError):
        advice = "still loading, hung, or another program: see `systemctl status` and `ss -xlp`"
        yield error("daemon", f"no answer within {_SECONDS:g} s", advice)
    else:
        advice = "is that another program's socket? `ss -xlp` shows whose"
        yield error("daemon", f"what answers is not a Sidecar daemon: {problem}", advice)


def check_requests(requests: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether requests failed, and with which codes."""
    ended = requests.get("failed") or {}
    failed = {code: count for code, count in ended.items() if code not in _PASSING}
    done = requests.get("completed", 0)
    total = max(1, done + sum(failed.values()))
    advised = [code for code in _ADVICE if failed.get(code)]
    for code in advised:
        found = f"{failed[code]} of {total} requests ended with {code}"
        yield warning("requests", found, _ADVICE[code])
    others = {code: count for code, count in failed.items() if code not in _ADVICE}
    if others:
        found = ", ".join(f"{count} {code}" for code, count in sorted(others.items()))
        yield note(
            "requests", found, "the callers' errors: `request.failed` and `peer.rejected` say why"
        )
    if not failed:
        yield ok("requests", f"{done} completed, none failed")


def check_queue(queue: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether too many texts are queued."""
    most = (queue.get("bounds") or {}).get("rows")
    rows = {lane: (queue.get(lane) or {}).get("rows", 0) for lane in ("interactive", "bulk")}
    found = ", ".join(f"{count} {lane}" for lane, count in rows.items()) + " texts queued"
    if most and max(rows.values()) > _FULL * most:
        advice = "texts outpace computation: add cores, send fewer, or set QUANTIZATION_CONFIG"
        yield warning("queue", f"{found}, of at most {most}", advice)
    else:
        yield ok("queue", found)


def check_same_threads(status: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    """Whether the daemon computes on as many threads as planned here."""
    if (threads := status.get("threads")) not in {None, plan.threads}:
        found = f"the daemon has {threads} inference threads, these settings give {plan.threads}"
        advice = "the daemon has other settings or another cgroup; restart it to apply these"
        yield note("threads", found, advice)


def check_speed(
    model: str, cost: Mapping[str, float], measured: Speed, lengths: Sequence[int]
) -> Iterator[Finding]:
    """Whether texts take as long as they did when the model was prepared.

    `cost` is the line that the daemon has fitted to its rows, in milliseconds: fixed and per token.
    `lengths` are the token counts of the probes on which `measured` was taken.
    """
    fixed, per_token = cost["fixed_ms"], cost["per_token_ms"]
    now = sum(fixed + per_token * tokens for tokens in lengths) / len(lengths)
    found = (
        f"{model}: a text of {sum(lengths) / len(lengths):.0f} tokens takes {now:.2f} ms on one "
        f"thread; {measured.mixed_ms:.2f} ms when it was prepared"
    )
    if now > _SLOWER * measured.mixed_ms:
        advice = "other programs use the cores, or a faster host prepared it: see load and cores"
        yield warning("speed", found, advice)
    else:
        yield ok("speed", found)


def check_resident(memory: Mapping[str, Any], limit: int) -> Iterator[Finding]:
    """How much of `limit` the daemon holds; both in bytes."""
    if not (held := memory.get("pss_bytes") or memory.get("rss_bytes")):
        return
    found = f"the daemon holds {held / 1e6:,.0f} MB of {limit / 1e6:,.0f} MB"
    if held > _CLOSE * limit:
        yield warning("memory", found, "raise MemoryMax, or lower SIDECAR_MAX_QUEUE_BYTES")
    else:
        yield ok("memory", found)
