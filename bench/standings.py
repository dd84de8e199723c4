"""Scores as people read them: tables, ratios, charts."""

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from bench.contenders import (
    BY_HAND,
    ENCODER_BATCHES,
    FP32_ALONE,
    FP32_BATCHES,
    SIDECAR,
    TEXTBOOK_BATCHES,
)
from bench.loads import CLIENTS, LONE_QUERY, Load
from bench.peers.table import SERVICES
from bench.report import Chart, Table, point, spread
from bench.scores import Scale, Scores

_MIXED = tuple(Load("mixed", n) for n in CLIENTS)
_UNIFORM = tuple(Load("uniform", n) for n in CLIENTS)
_ALONE, _MANY, _MOST = _MIXED
_ASKING = "asking, of the processors' time, at most"
_NOT_SO = "-"  # what is not measured under a load


def tables(scores: Scores) -> list[Table]:
    """Return throughput, latency, a lone query's time, and closeness to FP32."""
    times: Mapping[str, tuple[Load, Scale]] = {
        "p50, ms": (_MANY, "p50, ms"),
        "p99, ms": (_MANY, "p99, ms"),
        "worst, ms": (_MANY, "worst, ms"),
        "worst to median": (_MANY, "worst to median"),
    }
    lone: Mapping[str, tuple[Load, Scale]] = {"p50, ms": (LONE_QUERY, "p50, ms")}
    return [
        _rates("Texts a second, mixed lengths", scores, _MIXED),
        _rates("Texts a second, one length", scores, _UNIFORM),
        _table(f"Time of a text: {_MANY}", scores, times),
        _table(f"Time of {LONE_QUERY}", scores, lone),
        _closeness(scores),
    ]


def _rates(title: str, scores: Scores, loads: Sequence[Load]) -> Table:
    return _table(title, scores, {_clients(load): (load, "texts/s") for load in loads})


def _clients(load: Load) -> str:
    return f"{load.clients} client{'s' if load.clients > 1 else ''}"


def _table(title: str, scores: Scores, columns: Mapping[str, tuple[Load, Scale]]) -> Table:
    """Return a row for each contender who has been measured in any of the columns."""
    rows = []
    for name in scores.names:
        sides = [scores.side(name, *column) for column in columns.values()]
        if any(sides):
            rows.append((name, *(spread(side) if side else _NOT_SO for side in sides)))
    return Table(title, ("", *columns), rows)


def _closeness(scores: Scores) -> Table:
    rows = []
    for name in scores.names:
        cosines = scores.cosines(name, _MIXED)
        rows.append((name, f"{cosines.mean():.4f}", f"{cosines.min():.4f}"))
    return Table("Cosine to FP32 on mixed lengths", ("", "mean", "worst"), rows)


def figures(scores: Scores) -> dict[str, float]:
    """Return how many times as good Sidecar is, and what else tells how far to trust it."""
    ours = scores.median(SIDECAR, _MANY, "texts/s")
    if ours is None:
        return {}
    rates = _figures_of_rate(scores, ours)
    return {**dict(rates), **dict(_figures_of_time(scores)), _ASKING: _most_asking(scores)}


def _figures_of_rate(scores: Scores, ours: float) -> Iterator[tuple[str, float]]:
    for name, load in ((FP32_BATCHES, _MANY), (TEXTBOOK_BATCHES, _MANY), (BY_HAND, _ALONE)):
        if theirs := scores.median(name, load, "texts/s"):
            yield f"texts/s of 16 clients, times {name}", ours / theirs
    if best := _best_server(scores):
        name, theirs = best
        yield f"texts/s of 16 clients, times the best server, {name}", ours / theirs
    limit = scores.median(ENCODER_BATCHES, _MOST, "texts/s")
    if limit and (theirs := scores.median(FP32_BATCHES, _MANY, "texts/s")):
        yield f"its encoder in process, texts/s, times {FP32_BATCHES}", limit / theirs
    if limit and (daemon := scores.median(SIDECAR, _MOST, "texts/s")):
        yield "texts/s of 64 clients, of its encoder's in process", daemon / limit


def _figures_of_time(scores: Scores) -> Iterator[tuple[str, float]]:
    lone = scores.median(SIDECAR, LONE_QUERY, "p50, ms")
    for name in (FP32_ALONE, *SERVICES):
        if lone and (theirs := scores.median(name, LONE_QUERY, "p50, ms")):
            yield f"{LONE_QUERY}, times as fast as {name}", theirs / lone
    if worst := scores.median(SIDECAR, _MANY, "worst to median"):
        yield "worst time of a text, 16 clients, in medians", worst


def _best_server(scores: Scores) -> tuple[str, float] | None:
    """Return the fastest server of others, and its texts a second."""
    found = [(name, scores.median(name, _MANY, "texts/s")) for name in SERVICES]
    return max(((name, rate) for name, rate in found if rate), key=itemgetter(1), default=None)


def _most_asking(scores: Scores) -> float:
    """Return the largest share of the processors' time that the clients of a server took."""
    servers = (SIDECAR, *SERVICES)
    return max(each.asking for name in servers for each in scores.of(name, _MANY))


def charts(scores: Scores, title: str) -> list[Chart]:
    """Return throughput as bars, and times by the number of clients as lines."""
    return [
        _chart_of_rates(scores, title),
        _chart_of_times(scores, title, "p50, ms", "the median"),
        _chart_of_times(scores, title, "p99, ms", "the 99th percentile"),
    ]


def _chart_of_rates(scores: Scores, title: str) -> Chart:
    found = {name: scores.side(name, _MANY, "texts/s") for name in scores.names}
    alone = {name: scores.side(name, _ALONE, "texts/s") for name in scores.names}
    sides = {name: found[name] or alone[name] for name in scores.names}
    return Chart(
        name="texts",
        title=f"{title}: mixed lengths, 16 clients",
        about="Texts a second: "
        + ", ".join(f"{name} {side.median:.3g}" for name, side in sides.items() if side),
        x="",
        y="texts/s",
        series={name: [point("", side)] for name, side in sides.items() if side},
    )


def _chart_of_times(scores: Scores, title: str, scale: Scale, what: str) -> Chart:
    series = {}
    for name in (SIDECAR, *SERVICES):
        sides = {load.clients: scores.side(name, load, scale) for load in _MIXED}
        points = [point(clients, side) for clients, side in sides.items() if side]
        if points:
            series[name] = points
    return Chart(
        name=scale.partition(",")[0],
        title=f"{title}: mixed lengths, {what} of a text's time",
        about=f"A server a line: {what} of the times of a text, by the number of clients.",
        x="clients",
        y="ms",
        series=series,
        log_x=True,
        log_y=True,
    )
