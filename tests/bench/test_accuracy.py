"""The findings of `sidecar evaluate` become a table per data set, and a plot."""

from pathlib import Path
from typing import Any

from bench import accuracy
from sidecar.models.manifest import Quality
from sidecar.operate.evaluate.evaluation import (
    Difference,
    Evaluation,
    Figure,
    Judged,
    Outcome,
    Served,
)

EXACT = 0.5
WORSE = Difference(-0.05, -0.09, -0.01, -0.1)
NOTHING = Difference(0.0, -0.1, 0.1, None)


def evaluated(plan: str = "int8", mean: float = 0.999, served: str = "") -> dict[str, Any]:
    close = Quality(mean=mean, p1=0.998, min=0.997, texts=9)
    sets = [
        Judged("cranfield", "9 queries", "embed", (
            Outcome("none", (Figure("MRR@10", EXACT, None), Figure("NDCG@10", EXACT, None)), None),
            Outcome(plan, (
                Figure("MRR@10", EXACT, NOTHING), Figure("NDCG@10", 0.45, WORSE)
            ), close),
        )),
        Judged("flat", "2 pairs", "embed", (
            Outcome("none", (Figure("Spearman", 0.0, None),), None),
            Outcome(plan, (Figure("Spearman", 0.0, NOTHING),), close),
        )),
    ]  # fmt: skip
    plans = {
        "none": Served("none", None, "MatMul", 90_000_000, ()),
        plan: Served(served or plan, 7, "MatMulInteger", 22_500_000, ("layer.0.output",)),
    }
    return Evaluation("a model", Path("/srv/model"), "a processor", plans, sets).as_map()


def test_each_set_of_data_has_its_table() -> None:
    """Each data set's table has the difference to FP32, its interval and its significance."""
    plans, cranfield, flat = accuracy.result(evaluated()).tables
    assert plans.rows[1] == ("int8", "int8", "22.5", "25.0%", "1", "0.9990", "0.9970")
    assert cranfield.rows[1] == (
        "NDCG@10", "0.5000", "0.4500: -0.0500 (-10.00%), -0.0900 to -0.0100, more than chance",
    )  # fmt: skip
    assert flat.rows[0] == (
        "Spearman", "0.0000", "0.0000: +0.0000, -0.1000 to +0.1000, within noise",
    )  # fmt: skip


def test_the_plot_has_one_metric_a_set_in_percent_of_fp32() -> None:
    """The plot has one metric per data set in percent of FP32, unless FP32's figure is 0."""
    (chart,) = accuracy.result(evaluated()).charts
    ((point,),) = chart.series.values()
    assert (point.x, round(point.median, 9), round(point.low, 9)) == (
        "cranfield, NDCG@10",
        -10,
        -18,
    )


def test_how_many_figures_are_within_noise_is_told() -> None:
    """The figures count those within noise over all data sets."""
    figures = accuracy.result(evaluated()).figures
    assert figures["int8: figures within noise"] == "2 of 3"
    assert figures["int8: mean difference of its figures, %"] == "-10"


def test_a_plan_that_is_not_as_close_as_it_has_to_be_has_failed() -> None:
    """A plan below its closeness floor, or served as another plan, has failed."""
    for plan, floor in (("int8", 0.99), ("int4", 0.97)):
        assert not accuracy.result(evaluated(plan, floor)).failed
        (failed,) = accuracy.result(evaluated(plan, floor - 0.001)).failed
        assert failed == f"{plan}: closeness {floor - 0.001:.4f} under {floor}"
        assert accuracy.result(evaluated(plan, served="none")).failed == [f"{plan}: served as none"]
    auto = accuracy.result(evaluated("auto", 0.9, served="auto"))
    assert not auto.failed
