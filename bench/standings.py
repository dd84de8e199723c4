"""Scores as people read them: tables, ratios, charts."""

from collections.abc import Iterator, Mapping, Sequence

from bench.contenders import BY_HAND, FP32_ALONE, FP32_BATCHES, SIDECAR, TEXTBOOK_BATCHES
from bench.loads import CLIENTS, LONE_QUERY, Load
from bench.peers.table import SERVICES
from bench.report import Chart, Table, point, spread
from bench.scores import Scale, Scores

_MIXED = tuple(Load("mixed", n) for n in CLIENTS)
_UNIFORM = tuple(Load("uniform", n) for n in CLIENTS)
_ALONE, _MANY = _MIXED[0], _MIXED[1]
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


def figures(scores: Scores) -> dict[str, float | None]:
    """Return what Sidecar is in the middle, as ratios to others."""
    return dict(_figures(scores))


def _figures(scores: Scores) -> Iterator[tuple[str, float | None]]:
    ours = scores.median(SIDECAR, _MANY, "texts/s")
    if ours is None:
        return
    best = _best_peer(scores)
    rivals = {
        FP32_BATCHES: _MANY,
        TEXTBOOK_BATCHES: _MANY,
        BY_HAND: _ALONE,
        **({best: _MANY} if best else {}),
    }
    for name, load in rivals.items():
        if theirs := scores.median(name, load, "texts/s"):
            who = f"the best server, {name}" if name == best else name
            yield f"texts/s of 16 clients, to {who}", ours / theirs
    yield from _figures_of_time(scores)
    yield "processors' time that asking takes, at most", _most_asking(scores)


def _figures_of_time(scores: Scores) -> Iterator[tuple[str, float | None]]:
    lone = scores.median(SIDECAR, LONE_QUERY, "p50, ms")
    for name in (FP32_ALONE, *SERVICES):
        if lone and (theirs := scores.median(name, LONE_QUERY, "p50, ms")):
            yield f"time of a lone query, {name} to Sidecar", theirs / lone
    yield (
        "worst time of 16 clients, to the median",
        scores.median(SIDECAR, _MANY, "worst to median"),
    )


def _best_peer(scores: Scores) -> str | None:
    rates = {name: scores.median(name, _MANY, "texts/s") for name in SERVICES}
    there = {name: rate for name, rate in rates.items() if rate}
    return max(there, key=there.__getitem__) if there else None


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
