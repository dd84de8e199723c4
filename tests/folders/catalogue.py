"""All cases of the matrix by section, in the order of the table."""

from collections.abc import Mapping
from functools import cache
from itertools import chain

from .case import Case
from .configs import config_cases, prompt_cases
from .pipelines import family_cases, pipeline_cases, reranker_cases, static_cases
from .tokenizing import kind_cases, limit_cases, tokenizer_cases, vocabulary_cases
from .weights import tensor_cases, weight_cases


@cache
def sections() -> Mapping[str, tuple[Case, ...]]:
    """Return the cases by topic; names are unique."""
    return {
        "Families": tuple(family_cases()),
        "Modules": tuple(pipeline_cases()),
        "Static vectors": tuple(static_cases()),
        "Rerankers": tuple(reranker_cases()),
        "Any tokenizer": tuple(tokenizer_cases()),
        **{kind: tuple(kind_cases(kind)) for kind in ("WordPiece", "BPE", "Unigram")},
        "Vocabulary": tuple(vocabulary_cases()),
        "Limit of tokens": tuple(limit_cases()),
        "Files of weights": tuple(weight_cases()),
        "Tensors": tuple(tensor_cases()),
        "config.json": tuple(config_cases()),
        "Prompts": tuple(prompt_cases()),
    }


def all_cases() -> tuple[Case, ...]:
    """Return the cases of all sections."""
    return tuple(chain.from_iterable(sections().values()))


def families() -> tuple[str, ...]:
    """Return the families, in the order of their first case."""
    return tuple(dict.fromkeys(case.family for case in all_cases()))
