"""What the daemon says: the catalogue of its events, and how they become lines.

One JSON map a line: `ts` (ISO 8601, UTC), `level`, `event`, then the event's fields. Texts
never appear in one. A leaf: any room may import it, it imports none.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

import structlog

_LEVELS = logging.getLevelNamesMapping()
_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Event:
    """When an event is emitted, and its fields: name to meaning, with the unit."""

    when: str
    fields: Mapping[str, str]


_PRECISION = "none, int8, ..."
_SENTENCE = "the same in a sentence"
_MODEL = {"model": "name of the model", "task": "embed or rerank"}
_PEER = {
    "peer_pid": "process of the peer, by SO_PEERCRED",
    "peer_uid": "its user",
    "peer_gid": "its group",
}
_LANE = "interactive or bulk"
_REQUEST = {
    "op": "what was asked: embed, rerank, ...",
    "request_id": "the request's id on its connection",
    "peer_pid": _PEER["peer_pid"],
    "peer_uid": _PEER["peer_uid"],
    "trace_id": "the caller's trace, where its request carried a W3C traceparent",
    "parent_id": "the caller's span in it",
}

CATALOGUE: Mapping[str, Event] = {
    "model.loading": Event("a model is about to be located and read", _MODEL),
    "model.preparing": Event(
        "no artifact of a source model is in the cache: one is made, in a process of its own",
        {"model": _MODEL["model"], "quantization": "the precision that is tried"},
    ),
    "model.prepared": Event(
        "the artifact has been written",
        {"model": _MODEL["model"], "seconds": "time that it took, s"},
    ),
    "model.slow_path": Event(
        "no graph here computes the model: sentence-transformers serves it, in FP32",
        {**_MODEL, "reason": "what is not known of it"},
    ),
    "model.loaded": Event(
        "a model has computed its first row",
        {
            **_MODEL,
            "quantization": "the precision that it serves in: none, int8, fp16",
            "dimensions": "width of its vectors",
            "max_tokens": "where texts are cut",
            "bytes": "size of its weights",
        },
    ),
    "quantization.selected": Event(
        "it is decided in which precision a model is served",
        {
            **_MODEL,
            "quantization": "the precision: none, int8, fp16",
            "reason": "why this one, with the speed that was measured against FP32's",
            "message": "the same in a sentence",
        },
    ),
    "quantization.fell_back": Event(
        "layers, or the whole model, had to stay in FP32 to come close enough to it",
        {
            **_MODEL,
            "quantization": "what the model serves in after all",
            "layers": "the layers that stayed, the worst first; not there for fp16, where all do",
            "reason": "what they, or fp16, would have cost",
        },
    ),
    "quantization.applied": Event(
        "a quantized model serves, and has been compared with FP32",
        {
            **_MODEL,
            "quantization": "the precision: int8, fp16",
            "kernel": "what multiplies",
            "bytes_before": "size of the weights in FP32",
            "bytes_after": "size of the quantized weights",
            "seconds": "time that preparing took, s",
            "cosine_mean": "embedder: mean cosine of the vectors to FP32's",
            "cosine_p1": "embedder: the cosine that 1 % of the probes stay below",
            "cosine_min": "embedder: the worst cosine",
            "score_closeness_mean": "reranker: 1 less the mean distance to FP32's score",
            "rank_agreement": "reranker: share of document pairs in FP32's order",
            "message": "the same in a sentence",
        },
    ),
    "server.listening": Event(
        "the models are loaded and the socket takes connections",
        {
            "socket": "path of the socket",
            "models": "names of the models",
            "threads": "inference threads",
            "seconds": "time since the start, s",
        },
    ),
    "server.reloading": Event(
        "SIGHUP: the configuration is read again and its models are loaded; the old ones serve",
        {"models": "names of the models that serve"},
    ),
    "server.reloaded": Event(
        "what is new is computed by the models of the new configuration",
        {
            "changed": "names of the settings that have another value than before",
            "models": "names of the models, all loaded anew",
            "threads": "inference threads",
            "seconds": "time since the signal was taken up, s",
        },
    ),
    "server.reload_failed": Event(
        "a configuration is wrong, or its models cannot be loaded: the old ones serve on",
        {
            "error": "type of what was raised",
            "reason": "its message",
            "seconds": "time since the signal was taken up, s",
            "traceback": "where from",
        },
    ),
    "setting.ignored": Event(
        "a reload cannot change this setting: it takes a restart",
        {"setting": "its name", "value": "what is ignored", "kept": "what holds"},
    ),
    "engine.retired": Event(
        "after a reload the last request of the models before has ended, and they are released",
        {
            "models": "names of the models",
            "seconds": "time since the reload, s",
            "rss_bytes": "what the process holds now",
        },
    ),
    "server.draining": Event(
        "no new work is taken; what was accepted is finished",
        {
            "reason": "the signal, or what else ended it",
            "in_flight": "requests to finish",
            "drain_seconds": "how long that may take, s",
        },
    ),
    "server.stopped": Event(
        "the last event of a process",
        {"exit_code": "the process's exit code", "seconds": "time since the start, s"},
    ),
    "worker.crashed": Event(
        "an inference thread ended unasked: the daemon exits, and clients ask the next one",
        {"error": "type of what escaped", "traceback": "where from"},
    ),
    "worker.hung": Event(
        "a row has been computed for too long: the daemon exits, and clients ask the next one",
        {"seconds": "for how long"},
    ),
    "loop.failed": Event(
        "a callback of the event loop raised",
        {"message": "what the loop says", "traceback": "where from"},
    ),
    "peer.stalled": Event(
        "a peer did not go on for so long that its connection was closed",
        {**_PEER, "awaited": "what it was waited for", "seconds": "how long it may take"},
    ),
    "peer.connected": Event("a process has connected", _PEER),
    "peer.disconnected": Event(
        "a connection has ended",
        {**_PEER, "requests": "how many requests came over it"},
    ),
    "peer.failed": Event(
        "a connection was closed by a fault of the daemon",
        {**_PEER, "traceback": "where from"},
    ),
    "peer.rejected": Event(
        "a frame was refused before it became a request",
        {
            **_PEER,
            "request_id": "the id in the frame, or null",
            "code": "the error's code on the wire",
            "reason": "what was wrong with it",
            "fatal": "whether the connection is closed for it",
        },
    ),
    "request.completed": Event(
        "an embed or rerank was answered",
        {
            **_REQUEST,
            "lane": _LANE,
            "model": "name of the model",
            "rows": "texts that it had",
            "tokens": "their tokens",
            "cached_rows": "texts whose result was known from before",
            "shared_rows": "texts that were computed for an equal one asked at the same time",
            "queue_ms": "from the queue to its first row's start, ms",
            "tokenize_ms": "texts to tokens, ms",
            "compute_ms": "first row's start to last row's end, ms",
            "total_ms": "arrival to result, ms",
            "batch_rows": "rows of the largest batch that it was in",
        },
    ),
    "request.failed": Event(
        "a request was answered with an error, or cancelled",
        {
            **_REQUEST,
            "code": "the error's code on the wire",
            "reason": "the error's message",
            "traceback": "for what is a fault of the daemon, where from; else null",
        },
    ),
    "batch.completed": Event(
        "the last row of a batch has been computed",
        {
            "batch_id": "counts up from 1, anew after a reload",
            "model": "name of the model",
            "lane": _LANE,
            "peers": "how many processes its rows came from",
            "rows": "rows cut together, at most 16",
            "tokens": "their tokens, none of them padding",
            "queue_ms": "the longest wait of a row until the cut, ms",
            "compute_ms": "the cut to the last row's end, ms",
        },
    ),
}


class Lines:
    """Writes lines of bytes, each whole. A reader that has gone away is no reason to fail."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write one line and flush it."""
        try:
            self._stream.write(line + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = write


class _Threshold:
    """Drops what is below a level."""

    def __init__(self, level: str) -> None:
        self._least = _LEVELS[level.upper()]

    def __call__(
        self, _: object, level: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if _LEVELS[level.upper()] < self._least:
            raise structlog.DropEvent
        return event


def configure(level: str = "info", stream: BinaryIO | None = None) -> None:
    """Send events of `level` ("debug", "info", "warning", "error") and above to `stream`.

    The default stream is standard output.
    """
    lines = Lines(stream if stream is not None else sys.stdout.buffer)
    structlog.configure(
        processors=[_Threshold(level), _render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """Write events of `level` and above from now on, if `configure` has been called."""
    # In place: loggers keep the list that they were made with.
    processors = structlog.get_config()["processors"]
    processors[:] = [_Threshold(level) if isinstance(p, _Threshold) else p for p in processors]


def trace(error: BaseException) -> str:
    """Return `error`'s traceback, its causes included."""
    return "".join(traceback.format_exception(error))


def _render(_: object, level: str, event: MutableMapping[str, Any]) -> bytes:
    name = event.pop("event")
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    record = {"ts": now, "level": level, "event": name, **event}
    return _encode(record).encode()
