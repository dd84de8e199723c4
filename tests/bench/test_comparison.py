"""The README's comparison is made from the results of `serve` and `many`."""

from typing import Any

from bench import comparison

from .results import result


def side(unit: str, median: float) -> dict[str, Any]:
    return {"unit": unit, "median": median, "values": [median]}


SERVE = result(
    title="a model, Sidecar in int8, 8 texts a measurement",
    sides={
        "Sidecar: mixed, 16 clients": side("texts/s", 109.44),
        "Sidecar: a lone query of 8 words, p50": side("ms", 2.6789),
        "onnxruntime dynamic INT8, one at a time: mixed, 1 client": side("texts/s", 88.9),
        "onnxruntime dynamic INT8, one at a time: mixed, 16 clients": side("texts/s", 1.0),
    },
    tables=[
        {
            "title": "Cosine to FP32 on mixed lengths",
            "head": ["", "mean", "worst"],
            "rows": [["Sidecar", "0.9992", "0.9976"]],
        }
    ],
)
MANY = result(sides={"8 processes: Sidecar, one daemon in INT8": side("MB", 284.84)})
NOTHING = "-"


def rows(**results: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the cells of each row by contender."""
    (table,) = comparison.of(results)["tables"]
    return {name: tuple(cells) for name, *cells in table["rows"]}


def test_a_row_has_a_contender_s_medians_and_mean_cosine() -> None:
    """A row has the medians of throughput, query time and memory, and the mean cosine."""
    assert rows(serve=SERVE, many=MANY)["Sidecar, int8"] == ("109", "2.68", "0.9992", "285")


def test_one_that_takes_one_text_at_a_time_is_shown_with_one_caller() -> None:
    """A contender without batching, such as onnxruntime by hand, is shown with one caller."""
    (ours,) = (cells for name, cells in rows(serve=SERVE, many=MANY).items() if "by hand" in name)
    assert ours == ("88.9", NOTHING, NOTHING, NOTHING)


def test_what_was_not_measured_is_a_dash() -> None:
    """A contender that was not measured keeps its row, with dashes."""
    assert rows(serve=SERVE, many=MANY)["llama.cpp, q8_0"] == (NOTHING,) * 4


def test_without_results_there_are_no_rows() -> None:
    """The table is empty unless both `serve` and `many` have been measured."""
    assert rows() == rows(serve=SERVE) == rows(many=MANY) == {}


def test_it_names_the_model_the_host_and_the_commands() -> None:
    """The line above the table names the model, the host and both commands."""
    made = comparison.of({"serve": SERVE, "many": MANY})
    assert made["command"] == SERVE["command"]
    assert made["title"] == (
        "a model on a processor, 2 cores (avx2); memory by `python -m bench many`"
    )
