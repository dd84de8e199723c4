"""The built-in texts: short and long, prose, code, tables and languages.

Two sets that share nothing: one to calibrate on, one to verify on.
"""

from importlib import resources

from sidecar.models.description import Task
from sidecar.models.rows import Text

PASSAGES_PER_QUERY = 8
"""How many consecutive pairs of a reranker's inputs share a query."""


def probe_inputs(task: Task) -> list[Text]:
    """Return what a model of `task` is verified on."""
    queries, passages = _read("probes.txt")
    return inputs_of(task, queries, passages)


def calibration_inputs(task: Task) -> list[Text]:
    """Return what a model of `task` is calibrated on where no texts are given."""
    queries, passages = _read("calibration.txt")
    return inputs_of(task, queries, passages)


def inputs_of(task: Task, queries: list[str], passages: list[str]) -> list[Text]:
    """Return texts for an embedder; for a reranker pairs, every query with some passages."""
    if task == "embed":
        # The last one is longer than any model's limit: the cut is covered as well.
        return [*queries, *passages, " ".join(passages)]
    # A query meets its own answer, which has its number, and the passages behind that.
    return [
        (query, passages[(number + ahead) % len(passages)])
        for number, query in enumerate(queries)
        for ahead in range(PASSAGES_PER_QUERY)
    ]


def _read(name: str) -> tuple[list[str], list[str]]:
    text = resources.files("sidecar.models").joinpath(name).read_text("utf-8")
    queries, *passages = text.strip().split("\n\n")
    return queries.splitlines(), passages
