"""The catalogue of events. `sidecar events` generates docs/events.md from it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """When an event is emitted, its fields (name to meaning, with unit) and its levels."""

    when: str
    fields: Mapping[str, str]
    levels: tuple[str, ...] = ("info",)


_DEBUG, _WARNING, _ERROR = ("debug",), ("warning",), ("error",)
_MODEL = {"model": "name of the model", "task": "embed or rerank"}
_PEER = {
    "peer_pid": "process id of the peer, from SO_PEERCRED",
    "peer_uid": "its user id",
    "peer_gid": "its group id",
}
_UNLOGGED = "lines about this user's misbehaving peers suppressed since the last one"
_LANE = "interactive or bulk"
_SAMPLE = "if SIDECAR_LOG_SAMPLE is below 1: the probability with which the event was kept"
_RSS = "resident memory of the process (RSS), bytes"
_PSS = "memory of the process with its proportional share of shared pages (PSS), bytes"
_REQUEST = {
    "op": "the operation: embed, rerank, ...",
    "request_id": "id of the request on its connection; also in the client's error",
    "peer_pid": _PEER["peer_pid"],
    "peer_uid": _PEER["peer_uid"],
    "trace_id": "trace id of the caller, if the request carried a W3C traceparent",
    "parent_id": "span id of the caller in that trace",
}

CATALOGUE: Mapping[str, Event] = {
    "model.loading": Event("a model is about to be located and read", _MODEL),
    "model.preparing": Event(
        "the cache holds no artifact for a source model: one is prepared in a subprocess",
        {**_MODEL, "quantization": "the precision to try"},
    ),
    "model.prepared": Event(
        "the artifact has been written",
        {**_MODEL, "seconds": "time taken, s"},
    ),
    "model.slow_path": Event(
        "Sidecar has no graph for the model: sentence-transformers serves it in FP32",
        {**_MODEL, "reason": "what is not supported"},
        _WARNING,
    ),
    "model.loaded": Event(
        "a model has computed its first row",
        {
            **_MODEL,
            "quantization": "precision it is served in: none, int8, int4, fp16",
            "dimensions": "number of dimensions of its vectors",
            "max_tokens": "length in tokens at which texts are truncated",
            "model_max_tokens": "the model's own limit, without SIDECAR_MAX_TOKENS",
            "bytes": "size of its weights, bytes",
            "lone_threads": "threads that share a text when nothing else is being computed",
            "pss_bytes": _PSS,
            "verified": "whether FP32 output was verified against sentence-transformers",
            "verified_texts": "number of texts whose token ids were identical",
            "verified_cosine_min": "embedder: lowest cosine to the library's vectors",
            "verified_score_error_max": "reranker: largest difference from the library's scores",
            "verified_versions": "library versions it was verified with, by package",
        },
    ),
    "model.unverified": Event(
        "a model was loaded whose output has not been verified against sentence-transformers",
        {**_MODEL, "advice": "what to do"},
        _WARNING,
    ),
    "model.prompts_missing": Event(
        "a model was loaded that needs prompts, but has none for some role",
        {
            **_MODEL,
            "roles": "roles without a prompt: query, document",
            "message": "the same as a sentence, with the setting to change",
        },
        _WARNING,
    ),
    "model.damaged": Event(
        "an artifact is damaged and is prepared again from the model's source, or a layout, which "
        "is rebuilt from its artifact",
        {
            "model": "name of the model; for a layout, the folder of its artifact",
            "path": "the file that is missing, changed or unreadable",
            "reason": "what is wrong with it",
            "aside": "where the damaged folder was moved, NAME.damaged; null for a layout, "
            "which is removed",
        },
        _WARNING,
    ),
    "model.layout_failed": Event(
        "the prepacked weights could not be cached: a single text is computed on one thread",
        {"model": "folder of the artifact", "reason": "what went wrong"},
        _WARNING,
    ),
    "quantization.selected": Event(
        "the precision that a model is served in has been chosen",
        {
            **_MODEL,
            "quantization": "the precision: none, int8, int4, fp16",
            "reason": "why, with the measured speed relative to FP32",
            "message": "the same as a sentence",
        },
    ),
    "quantization.fell_back": Event(
        "some layers, or the whole model, stay in FP32 to meet the closeness threshold",
        {
            **_MODEL,
            "quantization": "precision that the model is served in",
            "layers": "layers kept in FP32, worst first; absent for fp16, where the whole model is",
            "reason": "why the quantization was rejected",
        },
        _WARNING,
    ),
    "quantization.applied": Event(
        "a quantized model has been compared with FP32 and is served",
        {
            **_MODEL,
            "quantization": "the precision: int8, int4, fp16",
            "kernel": "the operator that multiplies weights",
            "bytes_before": "size of the weights in FP32, bytes",
            "bytes_after": "size of the quantized weights, bytes",
            "seconds": "time taken to prepare it, s",
            "cosine_mean": "embedder: mean cosine to the FP32 vectors",
            "cosine_p1": "embedder: first percentile of that cosine",
            "cosine_min": "embedder: lowest cosine",
            "score_closeness_mean": "reranker: 1 minus the mean distance to the FP32 score",
            "rank_agreement": "reranker: share of document pairs in the same order as in FP32",
            "message": "the same as a sentence",
        },
    ),
    "server.listening": Event(
        "the models are loaded and the socket accepts connections",
        {
            "socket": "path of the socket",
            "models": "names of the models",
            "threads": "inference threads",
            "seconds": "time since the start, s",
            "pss_bytes": _PSS,
        },
    ),
    "server.memory": Event(
        "the PSS of the process, checked once a minute, has changed by more than 1 % since it was "
        "last reported",
        {"rss_bytes": _RSS, "pss_bytes": _PSS},
    ),
    "server.reloading": Event(
        "SIGHUP: the configuration is read and its models are loaded, while the old ones serve",
        {"models": "names of the models being served"},
    ),
    "server.reloaded": Event(
        "the models of the new configuration serve new requests",
        {
            "changed": "names of the settings that changed",
            "models": "names of the models, all newly loaded",
            "threads": "inference threads",
            "seconds": "time since the reload started, s",
        },
    ),
    "server.reload_failed": Event(
        "the new configuration is invalid or its models cannot be loaded: the old models keep "
        "serving",
        {
            "error": "type of the exception",
            "reason": "its message",
            "seconds": "time since the reload started, s",
            "traceback": "its traceback",
        },
        _ERROR,
    ),
    "setting.ignored": Event(
        "a reload cannot change this setting: it takes a restart",
        {"setting": "its name", "value": "the ignored value", "kept": "the value in effect"},
        _WARNING,
    ),
    "engine.retired": Event(
        "after a reload, the previous models have finished their last request and are released",
        {
            "models": "names of the models",
            "seconds": "time since the reload, s",
            "rss_bytes": _RSS,
            "pss_bytes": _PSS,
        },
    ),
    "memory.scarce": Event(
        "the memory left for peers does not fit one request of maximum size: that much is granted "
        "anyway",
        {
            "ceiling_bytes": "memory limit of the process, bytes",
            "taken_bytes": "memory taken without peers: code, models, result cache, bytes",
            "left_bytes": "memory left for peers, bytes",
            "budget_bytes": "memory granted to peers, bytes",
        },
        _WARNING,
    ),
    "server.draining": Event(
        "no new work is accepted; accepted work is finished",
        {
            "reason": "the signal, or other cause",
            "in_flight": "requests to finish",
            "drain_seconds": "time limit for that, s",
        },
    ),
    "server.drained": Event(
        "all accepted work has been computed",
        {"untaken": "replies that their peers have not read, and that are now lost"},
        ("info", "warning"),
    ),
    "server.stopped": Event(
        "the last event of a process",
        {"exit_code": "exit code of the process", "seconds": "time since the start, s"},
    ),
    "worker.crashed": Event(
        "an inference thread ended unexpectedly: the daemon exits, and clients retry",
        {"error": "type of the exception", "traceback": "its traceback"},
        _ERROR,
    ),
    "worker.hung": Event(
        "inference makes no progress: the daemon exits, and clients retry",
        {
            "seconds": "time without progress, s",
            "reason": "a row does not finish, or rows are queued and none is started",
        },
        _ERROR,
    ),
    "loop.failed": Event(
        "a callback of the event loop raised an exception",
        {"message": "message of the loop", "traceback": "traceback of the exception"},
        _ERROR,
    ),
    "server.exhausted": Event(
        "no connection can be accepted for lack of resources; open connections continue, and "
        "accepting is retried",
        {"reason": "the resource that ran out, as reported by the system"},
        _ERROR,
    ),
    "peer.stalled": Event(
        "a peer stalled and its connection was closed",
        {
            **_PEER,
            "awaited": "what the daemon was waiting for",
            "seconds": "time limit that was exceeded, s",
            "unlogged": _UNLOGGED,
        },
        _WARNING,
    ),
    "peer.connected": Event("a process has connected", _PEER, _DEBUG),
    "peer.disconnected": Event(
        "a connection has ended",
        {
            **_PEER,
            "requests": "number of requests received on it",
            "refused": "number of frames rejected, or 1 if the connection itself was",
        },
        _DEBUG,
    ),
    "peer.failed": Event(
        "a connection was closed because of an internal error",
        {**_PEER, "traceback": "traceback of the error"},
        _ERROR,
    ),
    "peer.rejected": Event(
        "a frame was rejected before it became a request",
        {
            **_PEER,
            "request_id": "id in the frame, if it had one",
            "code": "wire code of the error",
            "reason": "what was wrong with it",
            "fatal": "whether the connection is closed because of it",
            "unlogged": _UNLOGGED,
        },
        _WARNING,
    ),
    "request.completed": Event(
        "an embed or rerank request was answered",
        {
            **_REQUEST,
            "lane": _LANE,
            "model": "name of the model",
            "rows": "number of texts",
            "tokens": "number of tokens",
            "cached_rows": "texts whose result was in the cache",
            "shared_rows": "texts that shared the computation of an equal, concurrent one",
            "queue_ms": "from queueing to the start of its first row, ms",
            "tokenize_ms": "tokenization, ms",
            "compute_ms": "from the start of its first row to the end of its last, ms",
            "total_ms": "from arrival to result, ms",
            "batch_rows": "rows in the largest batch that it was part of",
            "sample": _SAMPLE,
        },
    ),
    "request.failed": Event(
        "a request was answered with an error, or cancelled",
        {
            **_REQUEST,
            "code": "wire code of the error",
            "reason": "message of the error",
            "traceback": "traceback, if the daemon is at fault",
            "unlogged": "failures of this user's requests suppressed since the last line",
        },
        ("info", "error"),
    ),
    "batch.completed": Event(
        "the last row of a batch has been computed",
        {
            "batch_id": "sequence number from 1; restarts after a reload",
            "model": "name of the model",
            "lane": _LANE,
            "peers": "number of processes its rows came from",
            "rows": "number of rows, at most 16",
            "tokens": "number of tokens, without any padding",
            "queue_ms": "longest time that one of its rows was queued, ms",
            "compute_ms": "from forming the batch to the end of its last row, ms",
            "sample": _SAMPLE,
        },
    ),
    "gateway.listening": Event(
        "`sidecar gateway` accepts connections",
        {
            "address": "where it listens: a URL, or unix: and a path",
            "socket": "path of the daemon's socket",
        },
    ),
    "gateway.open": Event(
        "a gateway on a loopback address requires no key, without --allow-unauthenticated",
        {"address": "URL it listens on", "message": "what that means, and what to do"},
        _WARNING,
    ),
    "gateway.turned_away": Event(
        "connections were turned away; logged at most once a minute per reason",
        {
            "reason": "what was awaited, or which limit was reached",
            "count": "number of connections since the last such event",
        },
        _WARNING,
    ),
    "gateway.failed": Event(
        "a request was answered with an internal error of the gateway",
        {
            "path": "path of the request",
            "trace_id": "trace id of the request: the caller's, or a new one",
            "error": "type of the exception",
            "traceback": "its traceback",
        },
        _ERROR,
    ),
    "gateway.draining": Event(
        "no new connections are accepted; requests in flight are finished",
        {"reason": "the signal", "in_flight": "requests to finish"},
    ),
    "gateway.stopped": Event(
        "the last event of a gateway",
        {"exit_code": "exit code of the process", "seconds": "time since the start, s"},
    ),
    "events.lost": Event(
        "events can be written again, after some were lost because nobody read them",
        {"count": "number of events lost"},
        _WARNING,
    ),
}
