"""Folders of all kinds, each served like the library or refused with a reason."""

import pytest

from ..minutes import may_take_minutes
from .case import Case
from .catalogue import all_cases, families
from .compare import Library, compare
from .conftest import Workshop

_EVERY = 10  # the sampling step with the check enabled, which doubles the time


@pytest.mark.slow
@pytest.mark.parametrize("family", families())
def test_every_folder_is_served_as_the_library_computes_it(family: str, workshop: Workshop) -> None:
    """Folders give the library's ids, cosines of 0.99999 and scores within 1e-4, or are refused."""
    cases = [case for case in all_cases() if case.family == family]
    wrong = [line for case in cases if (line := _complaint(case, workshop))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(cases)} folders:", *wrong])


@pytest.mark.slow
@pytest.mark.parametrize("family", families())
def test_the_proof_changes_no_outcome(
    family: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checking folders against the library does not change how any of them is served."""
    for module in ("sidecar.models.library", "sidecar.models.oracle.ask"):
        monkeypatch.setattr(f"{module}.has_library", lambda: True)
    every = 1 if may_take_minutes() else _EVERY
    cases = [case for case in all_cases() if case.family == family][::every]
    wrong = [line for case in cases if (line := _complaint(case, workshop))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(cases)} folders:", *wrong])


def _complaint(case: Case, workshop: Workshop) -> str:
    found = compare(Library(workshop.write(case), case.task), workshop.cache)
    if found.meets(case.expected):
        return ""
    return f"{case.name}: expected {case.expected}, found {found}"
