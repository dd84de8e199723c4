"""The daemon, by what it answers to `status`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_lib import Client, Draining, Forbidden, SidecarError, UntrustedDaemon
from sidecar.models.manifest import Speed
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning
from sidecar.plan import Plan

_SECONDS = 5.0
# One process alone may have three eighths of what may wait, unless set otherwise.
_FULL = 0.3
_SLOWER = 2.0
_CLOSE = 0.9
# What clients ask again by themselves.
_PASSING = {"draining"}
# What is to be done about requests that ended with these codes; others are their callers' faults.
_ADVICE = {
    "backend_failed": "the model failed: `request.failed` events have the traceback",
    "overloaded": "more came than was computed: more cores, fewer texts, or priority=bulk",
    "deadline_exceeded": "callers' timeouts are shorter than the queue: more cores or time",
    "forbidden": "SIDECAR_ALLOW_USERS and SIDECAR_ALLOW_GROUPS leave somebody out",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said of itself, or why it did not."""

    status: Mapping[str, Any] | None
    problem: Exception | None = None


def ask(path: Path) -> Answer:
    """Return the answer of the daemon at `path`, in 5 seconds at most."""
    try:
        with Client(path, timeout=_SECONDS, retries=False) as client:
            return Answer(client.status())
    except SidecarError as problem:
        return Answer(None, problem)


def check_answer(answer: Answer) -> Iterator[Finding]:
    """Whether a daemon answers, and that it is one."""
    status, problem = answer.status, answer.problem
    if status is not None:
        found = (
            f"version {status.get('version')}, pid {status.get('pid')}, {status.get('state')}, "
            f"up for {status.get('up_seconds', 0):,.0f} s"
        )
        if status.get("healthy", True):
            yield ok("daemon", found)
        else:
            advice = "inference makes no progress; the daemon ends itself soon, or kill it"
            yield error("daemon", f"{found}, not healthy", advice)
        return
    cause = problem.__cause__ if problem else None
    if isinstance(cause, FileNotFoundError):
        yield note("daemon", "none runs", "start one: `systemctl start sidecar`, `sidecar serve`")
    elif isinstance(cause, ConnectionRefusedError):
        advice = (
            "start one, which replaces the file: `systemctl start sidecar.socket`, `sidecar serve`"
        )
        yield warning("daemon", "the socket is stale: nobody listens there", advice)
    elif isinstance(cause, BlockingIOError):
        advice = "it hangs or is overrun: see its `worker.hung` events, restart it"
        yield error("daemon", "the socket's queue is full, nobody takes connections", advice)
    elif isinstance(problem, Forbidden):
        yield warning("daemon", f"it refuses: {problem}", _ADVICE["forbidden"])
    elif isinstance(problem, UntrustedDaemon):
        advice = "see who that is with `ss -xlp`; or set SIDECAR_DAEMON_USER, if it is right"
        yield error("daemon", f"another user's: {problem}", advice)
    elif isinstance(problem, Draining):
        yield note("daemon", "it is about to end; the next one answers", "ask again in a moment")
    elif isinstance(problem, TimeoutError):
        advice = "still loading, hung, or no daemon of this kind: see `systemctl status`, `ss -xlp`"
        yield error("daemon", f"no answer within {_SECONDS:g} s", advice)
    else:
        advice = "is that another program's socket? `ss -xlp` shows whose"
        yield error("daemon", f"what answers is no daemon of this kind: {problem}", advice)


def check_requests(requests: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether requests failed, and by what."""
    ended = requests.get("failed") or {}
    failed = {code: count for code, count in ended.items() if code not in _PASSING}
    done = requests.get("completed", 0)
    total = max(1, done + sum(failed.values()))
    told = [code for code in _ADVICE if failed.get(code)]
    for code in told:
        found = f"{failed[code]} of {total} requests ended with {code}"
        yield warning("requests", found, _ADVICE[code])
    others = {code: count for code, count in failed.items() if code not in _ADVICE}
    if others:
        found = ", ".join(f"{count} {code}" for code, count in sorted(others.items()))
        yield note("requests", found, "callers' own: `request.failed` and `peer.rejected` say why")
    if not failed:
        yield ok("requests", f"{done} completed, none failed")


def check_queue(queue: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether more waits than is healthy."""
    most = (queue.get("bounds") or {}).get("rows")
    rows = {lane: (queue.get(lane) or {}).get("rows", 0) for lane in ("interactive", "bulk")}
    found = ", ".join(f"{count} {lane}" for lane, count in rows.items()) + " texts wait"
    if most and max(rows.values()) > _FULL * most:
        advice = "more comes than is computed: more cores, fewer texts, QUANTIZATION_CONFIG"
        yield warning("queue", f"{found}, of {most} that may", advice)
    else:
        yield ok("queue", found)


def check_same_threads(status: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    """Whether the daemon computes on as many threads as planned here."""
    if (threads := status.get("threads")) not in {None, plan.threads}:
        found = f"the daemon has {threads} inference threads, these settings give {plan.threads}"
        advice = "the daemon has other settings or another cgroup; restart it if it should not"
        yield note("threads", found, advice)


def check_speed(
    model: str, cost: Mapping[str, float], measured: Speed, lengths: Sequence[int]
) -> Iterator[Finding]:
    """Whether rows take as long as they took when the model was prepared.

    `cost` is the line that the daemon has fitted through its rows, milliseconds fixed and per
    token; `lengths` are the tokens of the probes, which `measured` is the speed on.
    """
    fixed, per_token = cost["fixed_ms"], cost["per_token_ms"]
    now = sum(fixed + per_token * tokens for tokens in lengths) / len(lengths)
    found = (
        f"{model}: a text of {sum(lengths) / len(lengths):.0f} tokens takes {now:.2f} ms of a "
        f"thread; {measured.mixed_ms:.2f} ms when it was prepared"
    )
    if now > _SLOWER * measured.mixed_ms:
        advice = "others use the cores, or it was prepared on a faster host: see load and cores"
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
