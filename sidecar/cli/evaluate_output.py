"""The human-readable output of `sidecar evaluate`."""

import sys
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from sidecar.cli.console import Console
from sidecar.models.description import Task
from sidecar.operate.evaluate.cells import difference_of, megabytes, precision_of, value_of
from sidecar.operate.evaluate.evaluation import Evaluation, Figure, Judged, Served

_WIDE = 160
_CLOSENESS: dict[Task, str] = {"embed": "cosine", "rerank": "closeness"}


def show(evaluation: Evaluation) -> None:
    """Print a table per data set, and the precision that each plan is served in."""
    # Without a terminal there is no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    for each in evaluation.judged:
        table = Table(
            "", "plan", "value", "difference", "", "95 % interval", "",
            title=Text(f"{each.name}: {each.about}"), title_justify="left",
            box=None, pad_edge=False,
        )  # fmt: skip
        for row in _rows(each):
            table.add_row(*map(Text, row))
        console.print(table)
        console.print()
    for plan, served in evaluation.plans.items():
        console.print(Text(f"{plan}: {_remark(served)}"), style="dim")


def _rows(judged: Judged) -> Iterator[tuple[str, ...]]:
    for number, figure in enumerate(judged.exact.figures):
        yield figure.metric, judged.exact.plan, value_of(figure.value), "", "", "", ""
        for outcome in judged.compared:
            yield "", outcome.plan, *_cells(outcome.figures[number])
    for outcome in judged.compared:
        if found := outcome.closeness:
            name, mean = _CLOSENESS[judged.task], value_of(found.mean)
            yield name, outcome.plan, mean, f"p1 {found.p1:.4f}", "", f"min {found.min:.4f}", ""


def _cells(figure: Figure) -> tuple[str, ...]:
    assert figure.difference is not None
    return value_of(figure.value), *difference_of(figure.difference)


def _remark(served: Served) -> str:
    kept = served.kept_in_fp32
    layers = f"; {len(kept)} layers stayed in FP32" if kept else ""
    return f"served in {precision_of(served)}, {megabytes(served)}{layers}"
