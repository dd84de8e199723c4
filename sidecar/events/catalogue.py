"""The catalogue of events. docs/events.md is made from it: `sidecar events`."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """When an event is emitted, its fields (name to meaning, with the unit), and its levels."""

    when: str
    fields: Mapping[str, str]
    levels: tuple[str, ...] = ("info",)


_DEBUG, _WARNING, _ERROR = ("debug",), ("warning",), ("error",)
_MODEL = {"model": "name of the model", "task": "embed or rerank"}
_PEER = {
    "peer_pid": "process of the peer, by SO_PEERCRED",
    "peer_uid": "its user",
    "peer_gid": "its group",
}
_UNLOGGED = "how many lines about bad peers of this user were left out since the last one"
_LANE = "interactive or bulk"
_SAMPLE = "where SIDECAR_LOG_SAMPLE is below 1: the part of its kind that it stands for"
_RSS = "memory of the process with all that it shares (RSS), bytes"
_PSS = "memory of the process, its part of what is shared (PSS), bytes"
_REQUEST = {
    "op": "what was asked: embed, rerank, ...",
    "request_id": "the request's id on its connection; a client's error has it, too",
    "peer_pid": _PEER["peer_pid"],
    "peer_uid": _PEER["peer_uid"],
    "trace_id": "the caller's trace, where its request carried a W3C traceparent",
    "parent_id": "the caller's span in it",
}

CATALOGUE: Mapping[str, Event] = {
    "model.loading": Event("a model is about to be located and read", _MODEL),
    "model.preparing": Event(
        "no artifact of a source model is in the cache: one is made, in a process of its own",
        {**_MODEL, "quantization": "the precision that is tried"},
    ),
    "model.prepared": Event(
        "the artifact has been written",
        {**_MODEL, "seconds": "time that it took, s"},
    ),
    "model.slow_path": Event(
        "no graph here computes the model: sentence-transformers serves it, in FP32",
        {**_MODEL, "reason": "what is not known of it"},
        _WARNING,
    ),
    "model.loaded": Event(
        "a model has computed its first row",
        {
            **_MODEL,
            "quantization": "the precision that it serves in: none, int8, int4, fp16",
            "dimensions": "width of its vectors",
            "max_tokens": "where texts are cut",
            "model_max_tokens": "where the model would cut them without SIDECAR_MAX_TOKENS",
            "bytes": "size of its weights, bytes",
            "lone_threads": "threads that compute a text when nothing else is being computed",
            "pss_bytes": _PSS,
            "verified": "whether FP32 was proven equal to what sentence-transformers gives",
            "verified_texts": "texts whose token ids were identical",
            "verified_cosine_min": "embedder: least cosine of a vector to the library's",
            "verified_score_error_max": "reranker: largest difference to the library's score",
            "verified_versions": "versions of the libraries that it was proven with, by package",
        },
    ),
    "model.unverified": Event(
        "nothing proves that a model gives what sentence-transformers gives for its folder",
        {**_MODEL, "advice": "what to do"},
        _WARNING,
    ),
    "model.prompts_missing": Event(
        "a model was loaded that needs prompts, and has none for texts of some role",
        {
            **_MODEL,
            "roles": "what goes without: query, document",
            "message": "the same in a sentence, with the setting",
        },
        _WARNING,
    ),
    "model.damaged": Event(
        "what was prepared is not as it was written: it is made again from the model's source, or, "
        "a layout, from the artifact",
        {
            "model": "name of the model; of a layout, the folder of its artifact",
            "path": "the file that is missing, changed or not readable",
            "reason": "what is wrong with it",
            "aside": "where the damaged folder is now, NAME.damaged; null for a layout, "
            "which is removed",
        },
        _WARNING,
    ),
    "model.layout_failed": Event(
        "the weights could not be laid out in the cache: one thread computes a text that is alone",
        {"model": "folder of the artifact", "reason": "what went wrong"},
        _WARNING,
    ),
    "quantization.selected": Event(
        "it is decided in which precision a model is served",
        {
            **_MODEL,
            "quantization": "the precision: none, int8, int4, fp16",
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
        _WARNING,
    ),
    "quantization.applied": Event(
        "a quantized model serves, and has been compared with FP32",
        {
            **_MODEL,
            "quantization": "the precision: int8, int4, fp16",
            "kernel": "what multiplies",
            "bytes_before": "size of the weights in FP32, bytes",
            "bytes_after": "size of the quantized weights, bytes",
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
            "pss_bytes": _PSS,
        },
    ),
    "server.memory": Event(
        "looked at once a minute, what the process holds has moved by 1 % since it was said last",
        {"rss_bytes": _RSS, "pss_bytes": _PSS},
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
        _ERROR,
    ),
    "setting.ignored": Event(
        "a reload cannot change this setting: it takes a restart",
        {"setting": "its name", "value": "what is ignored", "kept": "what holds"},
        _WARNING,
    ),
    "engine.retired": Event(
        "after a reload the last request of the models before has ended, and they are released",
        {
            "models": "names of the models",
            "seconds": "time since the reload, s",
            "rss_bytes": _RSS,
            "pss_bytes": _PSS,
        },
    ),
    "memory.scarce": Event(
        "what may be held for peers would not take one largest request: it is given so much anyway",
        {
            "ceiling_bytes": "what the process may take, bytes",
            "taken_bytes": "what it takes without peers: code, models, cached results, bytes",
            "left_bytes": "what that leaves for peers, bytes",
            "budget_bytes": "what they are given, bytes",
        },
        _WARNING,
    ),
    "server.draining": Event(
        "no new work is taken; what was accepted is finished",
        {
            "reason": "the signal, or what else ended it",
            "in_flight": "requests to finish",
            "drain_seconds": "how long that may take, s",
        },
    ),
    "server.drained": Event(
        "all that was accepted has been computed",
        {"untaken": "replies that their peers have not taken, and now never will"},
        ("info", "warning"),
    ),
    "server.stopped": Event(
        "the last event of a process",
        {"exit_code": "the process's exit code", "seconds": "time since the start, s"},
    ),
    "worker.crashed": Event(
        "an inference thread ended unasked: the daemon exits, and clients ask the next one",
        {"error": "type of what escaped", "traceback": "where from"},
        _ERROR,
    ),
    "worker.hung": Event(
        "inference makes no progress: the daemon exits, and clients ask the next one",
        {
            "seconds": "for how long, s",
            "reason": "a row does not come to its end, or rows wait and none is begun",
        },
        _ERROR,
    ),
    "loop.failed": Event(
        "a callback of the event loop raised",
        {"message": "what the loop says", "traceback": "where from"},
        _ERROR,
    ),
    "server.exhausted": Event(
        "no connection can be accepted; those that are open go on, and it is tried again",
        {"reason": "what the system says is used up"},
        _ERROR,
    ),
    "peer.stalled": Event(
        "a peer did not go on for so long that its connection was closed",
        {
            **_PEER,
            "awaited": "what it was waited for",
            "seconds": "how long it may take, s",
            "unlogged": _UNLOGGED,
        },
        _WARNING,
    ),
    "peer.connected": Event("a process has connected", _PEER, _DEBUG),
    "peer.disconnected": Event(
        "a connection has ended",
        {
            **_PEER,
            "requests": "how many requests came over it",
            "refused": "how many of its frames were refused, or 1 where it was refused itself",
        },
        _DEBUG,
    ),
    "peer.failed": Event(
        "a connection was closed by a fault of the daemon",
        {**_PEER, "traceback": "where from"},
        _ERROR,
    ),
    "peer.rejected": Event(
        "a frame was refused before it became a request",
        {
            **_PEER,
            "request_id": "the id in the frame, if it had one",
            "code": "the error's code on the wire",
            "reason": "what was wrong with it",
            "fatal": "whether the connection is closed for it",
            "unlogged": _UNLOGGED,
        },
        _WARNING,
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
            "sample": _SAMPLE,
        },
    ),
    "request.failed": Event(
        "a request was answered with an error, or cancelled",
        {
            **_REQUEST,
            "code": "the error's code on the wire",
            "reason": "the error's message",
            "traceback": "for what is a fault of the daemon, where from",
            "unlogged": "how many failures of this user were left out since the last line",
        },
        ("info", "error"),
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
            "sample": _SAMPLE,
        },
    ),
    "gateway.listening": Event(
        "`sidecar gateway` takes connections",
        {
            "address": "where it listens: a URL, or unix: and a path",
            "socket": "path of the daemon's socket",
        },
    ),
    "gateway.open": Event(
        "a gateway on a loopback address asks callers for no key, and was not told to let all in",
        {"address": "where it listens: a URL", "message": "what that means, and what to do"},
        _WARNING,
    ),
    "gateway.turned_away": Event(
        "connections were closed that came to nothing; said once a minute of each reason",
        {
            "reason": "what was waited for, or what there is too much of",
            "count": "how many, since that was said last",
        },
        _WARNING,
    ),
    "gateway.failed": Event(
        "a request was answered with an error that is a fault of the gateway",
        {
            "path": "what was asked",
            "trace_id": "the request's trace: the caller's own, or a new one",
            "error": "type of what was raised",
            "traceback": "where from",
        },
        _ERROR,
    ),
    "gateway.draining": Event(
        "no new connections are taken; requests that were begun are finished",
        {"reason": "the signal", "in_flight": "requests to finish"},
    ),
    "gateway.stopped": Event(
        "the last event of a gateway",
        {"exit_code": "the process's exit code", "seconds": "time since the start, s"},
    ),
    "events.lost": Event(
        "events are written again, after some that were not because nobody took them",
        {"count": "how many were lost"},
        _WARNING,
    ),
}
