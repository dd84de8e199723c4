"""The built-in texts: short and long; prose, code, tables and several languages.

Two disjoint sets: one to calibrate on, one to verify on.
"""

from importlib import resources

from sidecar.models.description import Task
from sidecar.models.rows import Text

PASSAGES_PER_QUERY = 8
"""How many consecutive pairs of a reranker's inputs share a query."""


def probe_inputs(task: Task) -> list[Text]:
    """Return the inputs that a model of `task` is verified on."""
    queries, passages = _read("probes.txt")
    return inputs_of(task, queries, passages)


def calibration_inputs(task: Task) -> list[Text]:
    """Return the inputs that a model of `task` is calibrated on if the user gives none."""
    queries, passages = _read("calibration.txt")
    return inputs_of(task, queries, passages)


def inputs_of(task: Task, queries: list[str], passages: list[str]) -> list[Text]:
    """Return texts for an embedder or, for a reranker, pairs of every query and some passages."""
    if task == "embed":
        # The last one exceeds any model's limit, so that truncation is covered.
        return [*queries, *passages, " ".join(passages)]
    # Pair a query with its answer, the passage of the same number, and with those after it.
    return [
        (query, passages[(number + ahead) % len(passages)])
        for number, query in enumerate(queries)
        for ahead in range(PASSAGES_PER_QUERY)
    ]


def _read(name: str) -> tuple[list[str], list[str]]:
    text = resources.files("sidecar.models").joinpath(name).read_text("utf-8")
    queries, *passages = text.strip().split("\n\n")
    return queries.splitlines(), passages
