"""A daemon's `status` as metrics, in the text formats of OpenMetrics and Prometheus. Pure.

Names, units and help texts follow Prometheus' conventions. Every sample has the label `socket`,
which distinguishes the daemons of a host. This imports prometheus_client, 4 MB, so the daemon
imports it only when it is first asked for metrics.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from prometheus_client import exposition as prometheus
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from client_lib.wire.messages import MetricsFormat
from sidecar.serving.state import State

_Labels: TypeAlias = Mapping[str, str]
_Samples: TypeAlias = Iterable[tuple[_Labels, Any]]
_Family: TypeAlias = type[GaugeMetricFamily | CounterMetricFamily]

# The histograms' bounds: powers of two, like the buckets of a status.
_TIMES_MS = tuple(2.0**octave for octave in range(-1, 17))
_ROWS = tuple(2.0**octave for octave in range(5))
_TOKENS = tuple(2.0**octave for octave in range(3, 15))
_PHASES = ("queue", "tokenize", "compute", "total")


def exposition(status: Mapping[str, Any], form: MetricsFormat) -> tuple[str, str]:
    """Return the content type and the text of the metrics in format `form`."""
    module = prometheus if form == "prometheus" else openmetrics
    return module.CONTENT_TYPE_LATEST, module.generate_latest(_Collected(status)).decode()


class _Collected(Collector):
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        page = _Page(str(self._status["socket"]))
        yield from _daemon(page, self._status)
        yield from _models(page, self._status["models"])
        yield from _work(page, self._status["statistics"]["since_start"])
        yield from _queue(page, self._status["queue"])
        yield from _cache(page, self._status["cache"])
        yield from _process(page, self._status)


class _Page:
    """Creates metrics whose samples all have the label `socket`; labels are sorted by name."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def gauge(self, name: str, about: str, samples: _Samples) -> Metric:
        return self._plain(GaugeMetricFamily, name, about, samples)

    def counter(self, name: str, about: str, samples: _Samples) -> Metric:
        return self._plain(CounterMetricFamily, name, about, samples)

    def info(self, name: str, about: str, samples: Iterable[_Labels]) -> Metric:
        metric = InfoMetricFamily(name, about, labels=("socket",))
        for labels in samples:
            metric.add_metric((self._socket,), dict(labels))
        return metric

    def state(self, name: str, about: str, states: Mapping[str, bool]) -> Metric:
        metric = StateSetMetricFamily(name, about, labels=("socket",))
        metric.add_metric((self._socket,), dict(states))
        return metric

    def histogram(
        self, name: str, about: str, samples: _Samples, bounds: Sequence[float], per: float = 1.0
    ) -> Metric:
        """Convert distributions of a status; `per` of their units make one of the metric's."""
        rows = [(self._labelled(labels), each) for labels, each in samples]
        metric = HistogramMetricFamily(name, about, labels=_names(rows), unit=_unit(name))
        for labels, each in rows:
            buckets = _cumulative(each["buckets"], bounds, per)
            metric.add_metric(tuple(labels.values()), buckets, each["sum"] / per)
        return metric

    def _plain(self, family: _Family, name: str, about: str, samples: _Samples) -> Metric:
        rows = [(self._labelled(labels), value) for labels, value in samples]
        metric = family(name, about, labels=_names(rows), unit=_unit(name))
        for labels, value in rows:
            metric.add_metric(tuple(labels.values()), value)
        return metric

    def _labelled(self, labels: _Labels) -> dict[str, str]:
        return dict(sorted({**labels, "socket": self._socket}.items()))


def _unit(name: str) -> str:
    last = name.rpartition("_")[2]
    return last if last in {"bytes", "seconds"} else ""


def _names(rows: Sequence[tuple[_Labels, Any]]) -> tuple[str, ...]:
    return tuple(rows[0][0]) if rows else ()


def _cumulative(
    counts: Iterable[tuple[float, int]], bounds: Sequence[float], per: float
) -> list[tuple[str, float]]:
    """Return each bound as text, and the number of values up to it; the last is infinity."""
    pairs = list(counts)
    buckets: list[tuple[str, float]] = [
        (str(bound / per), sum(count for upper, count in pairs if upper <= bound))
        for bound in bounds
    ]
    return [*buckets, ("+Inf", sum(count for _, count in pairs))]


def _daemon(page: _Page, status: Mapping[str, Any]) -> Iterator[Metric]:
    yield page.info("sidecar_build", "The version of Sidecar.", [{"version": status["version"]}])
    healthy = int(status["healthy"])
    yield page.gauge("sidecar_healthy", "Whether inference makes progress: 1 or 0.", _one(healthy))
    states = {state.value: state.value == status["state"] for state in State}
    yield page.state("sidecar_state", "State of the daemon: 1 for the current one.", states)
    yield page.gauge("sidecar_inference_threads", "Inference threads.", _one(status["threads"]))
    peers = status["peers"]
    yield page.gauge("sidecar_peers", "Connected processes.", _one(len(peers)))
    connections = sum(peer["connections"] for peer in peers)
    yield page.gauge("sidecar_connections", "Open connections.", _one(connections))
    in_flight = status["requests"]["in_flight"]
    yield page.gauge("sidecar_requests_in_flight", "Requests not answered yet.", _one(in_flight))


def _models(page: _Page, models: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    names = ("task", "quantization", "device")
    yield page.info(
        "sidecar_model",
        "Served models and their precision.",
        [{"model": m["name"], **{name: str(m.get(name, "")) for name in names}} for m in models],
    )
    yield page.gauge(
        "sidecar_model_weight_bytes",
        "Size of the weights as served.",
        [({"model": m["name"]}, m["bytes_weights"]) for m in models if "bytes_weights" in m],
    )
    yield page.gauge(
        "sidecar_model_fp32_weight_bytes",
        "Size of the same weights in FP32.",
        [({"model": m["name"]}, m["bytes_fp32"]) for m in models if "bytes_fp32" in m],
    )
    measured = [m for m in models if m.get("quality")]
    yield page.gauge(
        "sidecar_model_quality_cosine",
        "Cosine of the probe texts' vectors to those of FP32, by statistic.",
        _closeness(m for m in measured if m["task"] == "embed"),
    )
    yield page.gauge(
        "sidecar_model_quality_score_closeness",
        "One minus the distance of the probe pairs' scores to those of FP32, by statistic.",
        _closeness(m for m in measured if m["task"] == "rerank"),
    )


def _closeness(models: Iterable[Mapping[str, Any]]) -> _Samples:
    for model in models:
        for statistic in ("mean", "p1", "min"):
            labels = {"model": model["name"], "statistic": statistic}
            yield labels, model["quality"][statistic]


def _work(page: _Page, done: Mapping[str, Any]) -> Iterator[Metric]:
    answered = [
        ({"op": op, "lane": lane}, each)
        for op, lanes in done["requests"].items()
        for lane, each in lanes.items()
    ]
    yield page.histogram(
        "sidecar_request_duration_seconds",
        "Duration of answered requests, by phase; total is the whole time.",
        [
            ({**labels, "phase": phase}, each[f"{phase}_ms"])
            for labels, each in answered
            for phase in _PHASES
        ],
        _TIMES_MS,
        per=1000,
    )
    for key, about in (
        ("texts", "Texts of answered requests."),
        ("tokens", "Tokens of answered requests."),
        ("cached", "Texts answered from the result cache."),
        ("shared", "Texts answered by the computation of an equal text."),
    ):
        name = f"sidecar_{key}" if key.startswith("t") else f"sidecar_{key}_texts"
        yield page.counter(name, about, [(labels, each[key]) for labels, each in answered])
    yield page.counter(
        "sidecar_request_errors",
        "Requests answered with an error, or cancelled.",
        [
            ({"op": op, "code": code}, count)
            for op, codes in done["failed"].items()
            for code, count in codes.items()
        ],
    )
    yield page.counter(
        "sidecar_requests_not_admitted",
        "Failed requests that were rejected at admission.",
        [
            ({"lane": lane, "code": code}, count)
            for lane, codes in done["not_admitted"].items()
            for code, count in codes.items()
        ],
    )
    yield page.counter(
        "sidecar_refusals",
        "Rejected connections, and frames that were not a request.",
        [({"code": code}, count) for code, count in done["refused"].items()],
    )
    batches = done["batches"].items()
    yield page.histogram(
        "sidecar_batch_texts",
        "Texts per batch.",
        [({"lane": lane}, each["rows"]) for lane, each in batches],
        _ROWS,
    )
    yield page.histogram(
        "sidecar_batch_tokens",
        "Tokens per batch.",
        [({"lane": lane}, each["tokens"]) for lane, each in batches],
        _TOKENS,
    )


def _queue(page: _Page, queue: Mapping[str, Any]) -> Iterator[Metric]:
    lanes = {lane: usage for lane, usage in queue.items() if lane != "bounds"}
    for key, unit in (("rows", "texts"), ("tokens", "tokens"), ("bytes", "bytes")):
        waiting = [({"lane": lane}, usage[key]) for lane, usage in lanes.items()]
        yield page.gauge(f"sidecar_queue_{unit}", f"Size of the queue, in {unit}.", waiting)
        most = _one(queue["bounds"][key])
        yield page.gauge(f"sidecar_queue_limit_{unit}", f"Limit of each lane, in {unit}.", most)
    yield page.gauge(
        "sidecar_queue_work_seconds",
        "Expected time to compute what is queued, on one thread.",
        [({"lane": lane}, usage["cost_ms"] / 1e3) for lane, usage in lanes.items()],
    )


def _cache(page: _Page, cache: Mapping[str, Any]) -> Iterator[Metric]:
    yield page.gauge("sidecar_cache_bytes", "Size of the result cache.", _one(cache["bytes"]))
    most = _one(cache["max_bytes"])
    yield page.gauge("sidecar_cache_limit_bytes", "Limit of the result cache.", most)
    yield page.gauge("sidecar_cache_texts", "Texts in the result cache.", _one(cache["rows"]))


def _process(page: _Page, status: Mapping[str, Any]) -> Iterator[Metric]:
    memory, process = status["memory"], status["process"]
    yield page.gauge(
        "sidecar_proportional_memory_bytes",
        "Memory of the process with its proportional share of shared pages (PSS).",
        _one(memory["pss_bytes"]),
    )
    yield page.gauge(
        "sidecar_start_proportional_memory_bytes",
        "The same, once the models had been loaded.",
        _one(memory["at_start"]["pss_bytes"]),
    )
    # As worded by other exporters: aggregators reject one name with two help texts.
    yield page.gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        _one(memory["rss_bytes"]),
    )
    yield page.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        _one(process["virtual_bytes"]),
    )
    yield page.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        _one(process["started"]),
    )
    yield page.counter(
        "process_cpu_seconds",
        "Total user and system CPU time spent in seconds.",
        _one(process["cpu_seconds"]),
    )
    yield page.gauge(
        "process_open_fds", "Number of open file descriptors.", _one(process["open_files"])
    )
    yield page.gauge(
        "process_max_fds", "Maximum number of open file descriptors.", _one(process["max_files"])
    )


def _one(value: float) -> _Samples:
    return [({}, value)]
