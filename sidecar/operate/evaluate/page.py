"""An evaluation → one HTML page that needs no network, no script and no other file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sidecar.models.description import Task
from sidecar.operate.evaluate.cells import (
    difference_of,
    megabytes,
    precision_of,
    typeset,
    value_of,
)
from sidecar.operate.evaluate.evaluation import (
    REFERENCE,
    Evaluation,
    Judged,
    Outcome,
    Served,
)
from sidecar.operate.evaluate.forest import ABOUT, forest
from sidecar.operate.page.document import Figure, Table, moment, render_page
from sidecar.operate.page.drawing import Plot, draw

_COMPARED = (
    "metric", "FP32", "plan", "value", "difference", "relative", "95 % interval", "verdict",
)  # fmt: skip
_MARKS = {"within noise": "noise", "better": "better", "worse": "worse"}
_CLOSENESS: dict[Task, str] = {
    "embed": "cosine between a text's two vectors",
    "rerank": "1 minus the distance between a pair's two scores",
}


@dataclass(frozen=True, slots=True)
class Section:
    """The results on one data set."""

    name: str
    about: str
    plot: Plot
    table: Table


def render(evaluation: Evaluation, now: datetime) -> str:
    """Return the page."""
    return render_page(
        "evaluate/page.html",
        evaluation=evaluation,
        plans=_list([plan for plan in evaluation.plans if plan != REFERENCE]),
        data=_list([each.name for each in evaluation.judged]),
        written=moment(now.timestamp()),
        figures=list(_figures(evaluation)),
        reading=ABOUT,
        sections=[_section(place, each) for place, each in enumerate(evaluation.judged)],
        tables=[_plans(evaluation), _closeness(evaluation)],
    )


def _list(names: list[str]) -> str:
    """Join the names as in a sentence."""
    *first, last = names or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _figures(evaluation: Evaluation) -> Iterator[Figure]:
    exact = evaluation.plans[REFERENCE]
    yield Figure("FP32", typeset(megabytes(exact)), "of weights")
    for plan, served in evaluation.plans.items():
        if plan != REFERENCE:
            yield Figure(plan, typeset(megabytes(served)), _share(served, exact))
            yield _verdicts(plan, evaluation)


def _share(served: Served, exact: Served) -> str:
    if served.quantization == REFERENCE:
        return "fell back to FP32"
    return f"{_of(served, exact)} of FP32's weights"


def _of(served: Served, exact: Served) -> str:
    return typeset(f"{100 * served.bytes_weights / exact.bytes_weights:.1f} %")


def _verdicts(plan: str, evaluation: Evaluation) -> Figure:
    found = Counter(
        figure.difference.verdict
        for each in evaluation.judged
        for outcome in each.compared
        for figure in outcome.figures
        if outcome.plan == plan and figure.difference
    )
    others = [f"{found[name]} {name}" for name in ("worse", "better") if found[name]]
    value = f"{found['within noise']} of {found.total()}"
    return Figure(f"{plan} within noise", value, ", ".join(["figures", *others]))


def _section(place: int, judged: Judged) -> Section:
    plot = draw(f"plot-{place}", forest(judged))
    return Section(judged.name, judged.about, plot, _table(judged))


def _table(judged: Judged) -> Table:
    if not judged.compared:
        rows = [(figure.metric, value_of(figure.value)) for figure in judged.exact.figures]
        return Table(judged.name, _COMPARED[:2], rows, "")
    return Table(judged.name, _COMPARED, list(_rows(judged)), "", _MARKS)


def _rows(judged: Judged) -> Iterator[tuple[str, ...]]:
    for place, exact in enumerate(judged.exact.figures):
        for outcome in judged.compared:
            own = outcome.figures[place]
            assert own.difference is not None
            *cells, verdict = difference_of(own.difference)
            head = (exact.metric, value_of(exact.value), outcome.plan, value_of(own.value))
            yield *head, *map(typeset, cells), verdict


def _plans(evaluation: Evaluation) -> Table:
    exact = evaluation.plans[REFERENCE]
    return Table(
        "What each plan is served in",
        ("plan", "served in", "weights", "of FP32's", "layers kept in FP32", "kernel"),
        [_plan(plan, served, exact) for plan, served in evaluation.plans.items()],
        "",
    )


def _plan(plan: str, served: Served, exact: Served) -> tuple[str, ...]:
    kept = ", ".join(served.kept_in_fp32)
    return (
        plan,
        precision_of(served),
        typeset(megabytes(served)),
        _of(served, exact),
        "all" if served.quantization == REFERENCE else kept or "none",
        served.kernel,
    )


def _closeness(evaluation: Evaluation) -> Table:
    return Table(
        "Closeness to FP32",
        ("data", "plan", "measure", "mean", "first percentile", "minimum", "texts"),
        [_close(each, own) for each in evaluation.judged for own in each.compared],
        "Nothing was compared with FP32.",
    )


def _close(judged: Judged, outcome: Outcome) -> tuple[str, ...]:
    found = outcome.closeness
    assert found is not None
    return (
        judged.name,
        outcome.plan,
        _CLOSENESS[judged.task],
        *map(value_of, (found.mean, found.p1, found.min)),
        f"{found.texts:,}",
    )
