"""Every case of the matrix, in the order of the table."""

from functools import cache

from .case import Case
from .configs import config_cases
from .pipelines import pipeline_cases, reranker_cases
from .tokenizing import tokenizer_cases
from .weights import weight_cases


@cache
def all_cases() -> tuple[Case, ...]:
    """Return the cases; no two have the same name."""
    cases = (
        *pipeline_cases(),
        *reranker_cases(),
        *tokenizer_cases(),
        *weight_cases(),
        *config_cases(),
    )
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "two cases share a name"
    return cases


def families() -> tuple[str, ...]:
    """Return the families in the order of their first case."""
    return tuple(dict.fromkeys(case.family for case in all_cases()))
