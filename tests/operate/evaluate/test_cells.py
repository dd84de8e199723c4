"""Figures as they are displayed, and an evaluation as a map."""

from pathlib import Path

import pytest

from sidecar.models.manifest import Quality
from sidecar.operate.evaluate.cells import (
    difference_of,
    megabytes,
    percent,
    precision_of,
    typeset,
    value_of,
)
from sidecar.operate.evaluate.evaluation import (
    Difference,
    Evaluation,
    Figure,
    Judged,
    Outcome,
    Served,
)

INT8 = Served("int8", 7, "MatMulInteger", 22_885_450, ("a",))


def test_precisions() -> None:
    """FP32 is shown by its name, and int8 with the width of its weights."""
    assert precision_of(INT8) == "int8, 7-bit weights"
    assert precision_of(Served("int4", None, "", 1, ())) == "int4"
    assert precision_of(Served("none", None, "", 1, ())) == "FP32"
    assert megabytes(INT8) == "22.9 MB"
    assert value_of(0.12345) == "0.1235"


def test_what_a_model_tells_of_itself() -> None:
    """The width of weights is read for int8 only, and layers kept in FP32 are optional."""
    told = {"quantization": "int8", "weight_bits": 7, "kernel": "MatMulInteger",
            "bytes_weights": 22_885_450, "kept": ["a"]}  # fmt: skip
    assert Served.of(told) == INT8
    int4 = Served.of({**told, "quantization": "int4"})
    assert (int4.quantization, int4.weight_bits) == ("int4", None)
    none = {**told, "quantization": "none"}
    del none["kept"]
    assert Served.of(none) == Served("none", None, "MatMulInteger", 22_885_450, ())


@pytest.mark.parametrize(
    ("found", "cells"),
    [
        (
            Difference(-0.0135, -0.022, -0.0051, -0.0297),
            ("-0.0135", "-2.97 %", "-0.0220 to -0.0051", "worse"),
        ),
        (
            Difference(0.01, -0.02, 0.03, 0.5),
            ("+0.0100", "+50.00 %", "-0.0200 to +0.0300", "within noise"),
        ),
        (Difference(0.0, 0.0, 0.0, None), ("0.0000", "", "0.0000 to 0.0000", "within noise")),
        (
            Difference(-1e-9, -1e-9, 0.0, -1e-9),
            ("0.0000", "0.00 %", "0.0000 to 0.0000", "within noise"),
        ),
    ],
)
def test_differences(found: Difference, cells: tuple[str, ...]) -> None:
    """Differences are shown with their signs, except those that round to 0."""
    assert difference_of(found) == cells
    assert percent(found) == cells[1]


def test_figures_are_typeset() -> None:
    """Typeset figures have a minus sign and no breaking spaces."""
    assert typeset("-2.9 %") == "\N{MINUS SIGN}2.9\N{NO-BREAK SPACE}%"


def test_an_evaluation_is_a_map() -> None:
    """An evaluation becomes a map by plan and metric, in which FP32 has no difference."""
    quality = Quality(mean=0.99, p1=0.98, min=0.97, texts=9)
    exact = Outcome("none", (Figure("MAP", 0.5, None),), None)
    own = Outcome("int8", (Figure("MAP", 0.4, Difference(-0.1, -0.2, -0.05, -0.2)),), quality)
    judged = Judged("data", "2 queries", "rerank", (exact, own))
    assert (judged.exact, judged.compared) == (exact, (own,))
    told = Evaluation("m", Path("/m"), "CPU", {"int8": INT8}, [judged]).as_map()
    assert told == {
        "model": "m",
        "source": "/m",
        "processor": "CPU",
        "plans": {
            "int8": {
                "quantization": "int8", "weight_bits": 7, "kernel": "MatMulInteger",
                "bytes_weights": 22_885_450, "kept_in_fp32": ("a",),
            },
        },
        "data": [
            {
                "name": "data",
                "about": "2 queries",
                "plans": {
                    "none": {"closeness": None, "metrics": {"MAP": {"value": 0.5}}},
                    "int8": {
                        "closeness": {
                            "mean": 0.99, "p1": 0.98, "min": 0.97, "texts": 9,
                            "rank_agreement": None,
                        },
                        "metrics": {
                            "MAP": {
                                "value": 0.4,
                                "difference": {
                                    "value": -0.1, "low": -0.2, "high": -0.05, "relative": -0.2,
                                    "within_noise": False,
                                },
                            },
                        },
                    },
                },
            },
        ],
    }  # fmt: skip
