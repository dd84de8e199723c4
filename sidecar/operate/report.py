"""A history → one HTML page that needs no network, no script and no other file."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sidecar.operate.aggregate import Group
from sidecar.operate.history import History
from sidecar.operate.page.document import Figure, Table, moment, render_page
from sidecar.operate.plots import plots
from sidecar.operate.query import number, text
from sidecar.operate.units import count, duration, size

_MOST_ROWS = 20
_SECOND = 1_000  # ms
_CLOSENESS = {
    "cosine_mean": "cosine {:.4f}",
    "score_closeness_mean": "score {:.4f}",
    "rank_agreement": "same order {:.1%}",
    "cosine_min": "at worst {:.4f}",
}


def render(history: History, sources: str, now: datetime) -> str:
    """Return the page; `sources` says where the events come from."""
    return render_page(
        "report.html",
        sources=sources,
        written=moment(now.timestamp()),
        first=moment(history.first) if history.records else None,
        last=moment(history.last) if history.records else None,
        spanned=duration(history.last - history.first) if history.records else None,
        records=told(history.records),
        step=duration(history.timeline.width),
        figures=list(_figures(history)),
        plots=list(plots(history)),
        tables=list(_tables(history)),
    )


def told(records: int) -> str:
    """Return the number of events in words."""
    return "1 event" if records == 1 else f"{records:,} events"


def _figures(history: History) -> Iterator[Figure]:
    requests = history.answered.get("requests", 0.0)
    asked = requests + history.failed
    yield Figure("answered", count(round(requests)), "requests")
    share = f"{history.failed / asked:.1%} of all" if asked else ""
    yield Figure("failed", count(round(history.failed)), share)
    yield Figure(
        "texts",
        count(round(history.answered.get("rows", 0.0))),
        f"{count(round(history.answered.get('tokens', 0.0)))} tokens",
    )
    if history.total_ms.count:
        p50, p95, p99 = history.total_ms.quantiles((0.50, 0.95, 0.99))
        yield Figure("median latency", _ms(p50), f"p95 {_ms(p95)}, p99 {_ms(p99)}")
    if history.pss_bytes is not None:
        yield Figure("memory", size(round(history.pss_bytes)), "last reported")
    yield Figure("starts", count(len(history.starts)), "of the daemon")


def _tables(history: History) -> Iterator[Table]:
    yield Table(
        "Quantization",
        ("model", "event", "precision", "weights", "closeness to FP32", "why"),
        [_quantization(name, fields) for (_, name), fields in sorted(history.quantization.items())],
        "No event of this period reports it: a daemon does so when it loads a model.",
    )
    yield Table(
        "What failed, and why",
        ("event", "code", "reason", "count"),
        [[*map(_cell, group.key), _amount(group.count)] for group in _first(history.failures)],
        "Nothing failed.",
    )
    yield Table(
        "Slowest batches",
        ("time", "model", "lane", "texts", "tokens", "waited", "computed in"),
        [_batch(fields) for fields in history.slowest_batches()],
        "No batch was computed.",
    )
    yield Table(
        "Busiest clients",
        ("user", "process", "requests", "tokens", "median latency", "p99"),
        [_asker(group) for group in _first(history.askers)],
        "No request was answered.",
    )


def _first(groups: Any) -> list[Group]:
    found: list[Group] = groups.groups()
    return found[:_MOST_ROWS]


def _quantization(name: str, fields: Mapping[str, Any]) -> list[str]:
    before, after = number(fields.get("bytes_before")), number(fields.get("bytes_after"))
    weights = f"{size(round(before))} → {size(round(after))}" if before and after else ""
    measured = {key: number(fields.get(key)) for key in _CLOSENESS}
    close = [_CLOSENESS[key].format(value) for key, value in measured.items() if value is not None]
    model, precision = fields.get("model"), fields.get("quantization")
    why = fields.get("reason") or fields.get("message")
    what = name.removeprefix("quantization.")
    return [_cell(model), what, _cell(precision), weights, ", ".join(close), _cell(why)]


def _batch(fields: Mapping[str, Any]) -> list[str]:
    head = [moment(datetime.fromisoformat(fields["ts"]).timestamp()), fields.get("model")]
    lane = fields.get("lane", fields.get("priority"))
    rest = [lane, fields.get("rows"), fields.get("tokens")]
    times = [number(fields.get(name)) for name in ("queue_ms", "compute_ms")]
    return [*map(_cell, [*head, *rest]), *("" if time is None else _ms(time) for time in times)]


def _asker(group: Group) -> list[str]:
    tokens, total_ms = group.summaries.get("tokens"), group.summaries.get("total_ms")
    return [
        *map(_cell, group.key),
        _amount(group.count),
        _amount(tokens.sum) if tokens else "",
        _ms(total_ms.p50) if total_ms else "",
        _ms(total_ms.p99) if total_ms else "",
    ]


def _cell(value: Any) -> str:
    return "" if value is None else text(value)


def _amount(value: float) -> str:
    return f"{value:,.0f}"


def _ms(value: float) -> str:
    """Format a time with its unit, without a line break."""
    return (
        f"{value / 1e3:,.2f}\N{NO-BREAK SPACE}s"
        if value >= _SECOND
        else f"{value:.3g}\N{NO-BREAK SPACE}ms"
    )
