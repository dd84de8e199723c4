"""A history → plots to embed in a page."""

from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import partial
from math import nan

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sidecar.operate.history import History
from sidecar.operate.page.drawing import INK, SERIES, Drawing, Plot, draw
from sidecar.operate.timeline import Step

_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_DASHES = ("-", "--", ":")
_SECOND = 1_000  # ms
_DAY = 86_400  # s; matplotlib counts days
_MOST_KINDS = 5
_OTHER_KINDS = "other"
_START = "start"
_MANY_STEPS = 60
_SHORT_LABEL = 8  # characters


def plots(history: History) -> Iterator[Plot]:
    """Yield the plots of a report."""
    for index, drawing in enumerate(_drawings(history)):
        yield draw(f"plot-{index}", drawing)


def _drawings(history: History) -> Iterator[Drawing]:
    yield Drawing(
        "Latency",
        "From arrival to result: half, 95 % and 99 % of requests took less.",
        "No request was answered in this period.",
        partial(_percentiles, history, "total_ms"),
    )
    yield Drawing(
        "Time in the queue",
        "How long requests waited before computing their first text began.",
        "No request was answered in this period.",
        partial(_percentiles, history, "queue_ms"),
    )
    yield Drawing(
        "Throughput",
        "Texts computed and requests answered, per second.",
        "No request was answered in this period.",
        partial(_throughput, history),
    )
    yield Drawing(
        "Batch sizes",
        "How many texts were batched together: the share of batches of each size.",
        "No batch was computed in this period.",
        partial(_batch_rows, history),
    )
    yield Drawing(
        "Memory",
        "Memory of the process, with its part of shared pages (PSS), as reported.",
        "No event of this period reports the memory of the process.",
        partial(_memory, history),
    )
    yield Drawing(
        "Errors",
        "Requests and connections that failed, by error code.",
        "Nothing failed in this period.",
        partial(_errors, history),
    )


def _percentiles(history: History, name: str, axes: Axes) -> bool:
    times, steps = _steps(history)
    spread = [getattr(step, name) for step in steps]
    if not any(each.count for each in spread):
        return False
    gap = [nan] * len(_SHARES)
    points = [each.quantiles(list(_SHARES.values())) if each.count else gap for each in spread]
    for place, (label, dashes) in enumerate(zip(_SHARES, _DASHES, strict=True)):
        values = [point[place] for point in points]
        axes.plot(times, values, dashes, marker="o", markersize=_dot(steps), label=label)
    _scale_of_times(axes)
    _dress(axes, history)
    return True


def _scale_of_times(axes: Axes) -> None:
    """Show 1 ms beside 1 s, on a log scale; a time of 0 is drawn at the lower end."""
    low, high = axes.dataLim.minposy, axes.dataLim.y1
    low = max(low, high / 1e5)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(low / 1.3, high * 1.6)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < low * 1e3 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _time_label(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _time_label(value: float) -> str:
    return f"{value / 1e3:g} s" if value >= _SECOND else f"{value:g} ms"


def _throughput(history: History, axes: Axes) -> bool:
    times, steps = _steps(history)
    if not history.answered:
        return False
    for name, label, dashes in (("rows", "texts", "-"), ("requests", "requests", "--")):
        rates = [step.answered.get(name, 0.0) / history.timeline.width for step in steps]
        axes.plot(times, rates, dashes, marker="o", markersize=_dot(steps), label=label)
        if name == "rows":
            axes.fill_between(times, rates, alpha=0.15, linewidth=0)
    axes.set_ylim(bottom=0)
    _dress(axes, history)
    return True


def _batch_rows(history: History, axes: Axes) -> bool:
    counts = history.batch_rows
    if not counts:
        return False
    axes.bar(list(counts), [100 * n / counts.total() for n in counts.values()], width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("texts in a batch")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    return True


def _memory(history: History, axes: Axes) -> bool:
    times, steps = _steps(history)
    reported = [index for index, step in enumerate(steps) if step.pss_bytes.count]
    if not reported:
        return False
    xs, ys = [times[i] for i in reported], [steps[i].pss_bytes.greatest / 1e6 for i in reported]
    axes.plot(xs, ys, "o", markersize=2 * _dot(steps), color=SERIES[0])
    xs, ys = [*xs, times[-1]], [*ys, ys[-1]]  # the last report holds to the end
    axes.plot(xs, ys, drawstyle="steps-post", color=SERIES[0])
    axes.fill_between(xs, ys, step="post", alpha=0.15, linewidth=0, color=SERIES[0])
    axes.set_ylim(0, max(ys) * 1.25)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} MB"))
    _dress(axes, history)
    return True


def _errors(history: History, axes: Axes) -> bool:
    times, steps = _steps(history)
    kinds = _kinds(steps)
    if not kinds:
        return False
    days = history.timeline.width / _DAY
    floor = [0.0] * len(steps)
    for label, names in kinds.items():
        counts = [sum(step.failed.get(name, 0.0) for name in names) for step in steps]
        axes.bar(times, counts, width=0.9 * days, bottom=floor, label=label)
        floor = [low + count for low, count in zip(floor, counts, strict=True)]
    axes.set_ylim(0, max(floor) * 1.25)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _dress(axes, history)
    return True


def _kinds(steps: Sequence[Step]) -> dict[str, list[str]]:
    """Return the labels of failures, most frequent first, and the kinds under each."""
    totals: dict[str, float] = {}
    for step in steps:
        for kind, count in step.failed.items():
            totals[kind] = totals.get(kind, 0.0) + count
    order = sorted(totals, key=lambda kind: -totals[kind])
    labels = {kind: [kind] for kind in order[:_MOST_KINDS]}
    return labels | ({_OTHER_KINDS: order[_MOST_KINDS:]} if order[_MOST_KINDS:] else {})


def _steps(history: History) -> tuple[list[float], list[Step]]:
    """Return the midpoints of the steps, in days, and the steps."""
    found = list(history.timeline.steps())
    return [at / _DAY for at, _ in found], [step for _, step in found]


def _dot(steps: Sequence[Step]) -> float:
    """Return the size of a step's mark, which is all that shows of one between two gaps."""
    return 2.4 if len(steps) <= _MANY_STEPS else 1.0


def _dress(axes: Axes, history: History) -> None:
    """Label the time axis, and mark the daemon's starts."""
    for index, start in enumerate(history.starts):
        label = _START if index == 0 else None
        axes.axvline(start / _DAY, color=INK, alpha=0.35, linewidth=1, linestyle="-.", label=label)
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    margin = history.timeline.width / _DAY
    times, _ = _steps(history)
    axes.set_xlim(times[0] - margin, times[-1] + margin)  # the same in all plots
    _explain(axes)


def _explain(axes: Axes) -> None:
    """Put the legend above the plot, ending with the entry that all plots share."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if _START in handles:
        handles[_START] = handles.pop(_START)
    if handles:
        axes.legend(
            handles.values(),
            handles.keys(),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=4 if max(map(len, handles)) <= _SHORT_LABEL else 2,  # as many as fit
            borderaxespad=0,
            columnspacing=1.2,
        )
