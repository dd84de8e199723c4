"""What each quantization costs on judged data: `sidecar evaluate`, as a table and a plot."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.report import Chart, Point, Result, Table, told
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL

_EXACT = "none"  # the plan that is FP32, and is always there
_DATA = ("cranfield", "cacm", "cisi", "pubmedqa", "xquad-en", "stsb")
# Less close to FP32 than this no model's outputs are, in the mean, unless something is wrong.
_FLOORS = {"int8": 0.99, "int4": 0.97}
_MB = 1e6
_PERCENT = 100

_Judged = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="DIR",
        default=[Path("../shared/data", name) for name in _DATA],
    )  # fmt: skip
    parser.add_argument("--plans", default="none,int8,int4")
    parser.add_argument("--limit", type=int, metavar="N", help="of each set N queries")


def measure(arguments: argparse.Namespace) -> Result:
    return result(_evaluated(arguments))


def result(found: _Judged) -> Result:
    """Return what `sidecar evaluate --json` printed as the result of a measurement."""
    return Result(
        title=f"{found['model']}: accuracy against FP32",
        sides=(),
        figures=dict(_within(found["data"])),
        failed=list(_too_far(found)),
        tables=[_plans(found), *(_table(each) for each in found["data"])],
        charts=[_chart(found)],
    )


def _evaluated(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `sidecar evaluate` prints, which shows its progress on standard error."""
    command = ["evaluate", arguments.model, "--plans", arguments.plans, "--json"]
    command += ["--data", *map(str, arguments.data)]
    command += ["--limit", str(arguments.limit)] if arguments.limit else []
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *command], stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"sidecar evaluate ended with {done.returncode}")
    evaluated: dict[str, Any] = json.loads(done.stdout)
    return evaluated


def _plans(found: _Judged) -> Table:
    """What each plan is: its bytes, what stayed in FP32, and how close its outputs are."""
    exact = found["plans"][_EXACT]["bytes_weights"]
    rows = [
        (
            _name(plan),
            served["quantization"],
            f"{served['bytes_weights'] / _MB:.1f}",
            f"{served['bytes_weights'] / exact:.1%}",
            str(len(served["kept_in_fp32"])),
            *_closeness(found["data"], plan),
        )
        for plan, served in found["plans"].items()
    ]
    head = ("plan", "served as", "weights, MB", "of FP32", "layers left in FP32")
    return Table("What was compared", (*head, "closeness, mean", "least"), rows)


def _too_far(found: _Judged) -> Iterator[str]:
    """Yield what is not served as its plan says, or is under the plan's floor."""
    for plan, served in found["plans"].items():
        if served["quantization"] != plan:
            yield f"{plan}: served as {served['quantization']}"
        elif plan in _FLOORS and (mean := _mean_closeness(found["data"], plan)) < _FLOORS[plan]:
            yield f"{plan}: closeness {mean:.4f} under {_FLOORS[plan]}"


def _mean_closeness(data: Sequence[_Judged], plan: str) -> float:
    """Return the mean of the sets' means."""
    return fmean(each["plans"][plan]["closeness"]["mean"] for each in data)


def _closeness(data: Sequence[_Judged], plan: str) -> tuple[str, str]:
    """Return the mean of the sets' means, and the least of all outputs."""
    found = [each["plans"][plan]["closeness"] for each in data]
    if plan == _EXACT:
        return "-", "-"
    return (
        f"{_mean_closeness(data, plan):.4f}",
        f"{min(each['min'] for each in found):.4f}",
    )


def _table(judged: _Judged) -> Table:
    exact, others = judged["plans"][_EXACT]["metrics"], _compared(judged)
    rows = [
        (metric, f"{figure['value']:.4f}", *(_cell(others[plan][metric]) for plan in others))
        for metric, figure in exact.items()
    ]
    head = ("", "FP32", *(f"{plan}: difference, 95 % interval" for plan in others))
    return Table(f"{judged['name']}: {judged['about']}", head, rows)


def _compared(judged: _Judged) -> dict[str, Mapping[str, Any]]:
    return {plan: outcome["metrics"] for plan, outcome in judged["plans"].items() if plan != _EXACT}


def _cell(figure: Mapping[str, Any]) -> str:
    found = figure["difference"]
    verdict = "within noise" if found["within_noise"] else "more than chance"
    relative = "" if found["relative"] is None else f" ({found['relative']:+.2%})"
    return (
        f"{figure['value']:.4f}: {found['value']:+.4f}{relative}, "
        f"{found['low']:+.4f} to {found['high']:+.4f}, {verdict}"
    )


def _within(data: Sequence[_Judged]) -> Iterator[tuple[str, str]]:
    """Yield for each plan how many of its figures these data can tell from FP32's."""
    for plan in _compared(data[0]):
        found = [f["difference"] for each in data for f in _compared(each)[plan].values()]
        noise = sum(each["within_noise"] for each in found)
        yield f"{plan}: figures within noise", f"{noise} of {len(found)}"
        if relative := [each["relative"] for each in found if each["relative"] is not None]:
            yield f"{plan}: mean difference of its figures, %", told(_PERCENT * fmean(relative), 2)


def _chart(found: _Judged) -> Chart:
    series: dict[str, list[Point]] = {}
    for judged in found["data"]:
        for plan, metrics in _compared(judged).items():
            points, metric = series.setdefault(plan, []), _leading(metrics)
            if metrics[metric]["difference"]["relative"] is not None:
                points.append(_point(f"{judged['name']}, {metric}", metrics[metric]))
    return Chart(
        name="differences",
        title=f"{found['model']}: difference to FP32",
        about="A metric's difference to that of FP32 on each set of data, in percent of it, with "
        "the interval that holds 95 % of all draws of queries; 0 in it: within noise.",
        x="",
        y="difference to FP32, %",
        series=series,
    )


def _leading(metrics: Mapping[str, Any]) -> str:
    """Return the metric that stands for the others in a plot."""
    return next((name for name in metrics if name.startswith("NDCG")), next(iter(metrics)))


def _point(name: str, figure: Mapping[str, Any]) -> Point:
    """Return a difference and its interval as percent of FP32's figure."""
    found = figure["difference"]
    exact = figure["value"] - found["value"]
    middle, low, high = (_PERCENT * found[key] / exact for key in ("value", "low", "high"))
    return Point(name, middle, low, high)


def _name(plan: str) -> str:
    return "FP32" if plan == _EXACT else plan
