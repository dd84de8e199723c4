"""Single-field edits of a folder, after which our results must still match the library's."""

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest

from .compare import Library, compare
from .conftest import Workshop
from .mutations import BASES, Base

_TEXTS = (
    "How do I reset my password?",
    "naïve café, ÅNGSTRÖM and 東京都",
    "a <mask>, a [MASK], <pad> and [PAD] about it",
    "",
    " ".join(map(str, range(60))),
)


@dataclass(frozen=True, slots=True)
class _Answers:
    """The library's results for the texts, empty if it cannot load the folder."""

    results: tuple[Any, ...]

    def same_as(self, other: "_Answers") -> bool:
        """Whether all results are bit-identical; the library is deterministic."""
        pairs = zip_longest(self.results, other.results)
        return all(np.array_equal(one, another) for one, another in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_our_answer_changes_when_the_library_s_does(base: Base, workshop: Workshop) -> None:
    """After every edit our results match the library's or we refuse; the listed edits matter."""
    task = base.case.task
    before = _answers_of(Library(workshop.write(base.case), task))
    wrong, changing = [], set()
    for name, edit in base.edits.items():
        library = Library(workshop.write(replace(base.case, edits=(edit,))), task)
        found = compare(library, workshop.cache)
        if found.served not in {"graph", "library", "refused"}:
            wrong.append(f"{name}: {found}")
        if not _answers_of(library).same_as(before):
            changing.add(name)
    assert not wrong, "\n".join(wrong)
    assert changing == base.changing


def _answers_of(library: Library) -> _Answers:
    """Return the library's results for its folder, or none if it cannot be loaded."""
    texts = [(text, _TEXTS[0]) if library.task == "rerank" else text for text in _TEXTS]
    try:
        return _Answers(tuple(library.results(texts, prompt_name=None)))
    except Exception:  # noqa: BLE001 - the library may raise anything for such a folder
        return _Answers(())
