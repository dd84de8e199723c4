"""The built-in probe texts: short and long, prose, code, tables and languages, one file."""

from functools import cache
from importlib import resources

from sidecar.models.description import Task
from sidecar.models.rows import Text

PASSAGES_PER_QUERY = 8
"""How many consecutive pairs of `probe_inputs("rerank")` share a query."""


def probe_inputs(task: Task) -> list[Text]:
    """Return what a model of `task` is verified on: texts, or queries paired with passages."""
    queries, passages = _texts()
    if task == "embed":
        # The last one is longer than any model's limit: the cut is verified as well.
        return [*queries, *passages, " ".join(passages)]
    return [(query, passage) for query in queries for passage in passages[:PASSAGES_PER_QUERY]]


@cache
def _texts() -> tuple[list[str], list[str]]:
    text = resources.files("sidecar.models").joinpath("probes.txt").read_text("utf-8")
    queries, *passages = text.strip().split("\n\n")
    return queries.splitlines(), passages
