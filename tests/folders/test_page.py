"""The page of folders says what the matrix expects."""

from .catalogue import all_cases
from .page import PAGE, filled, table


def test_the_page_holds_the_table_of_the_cases() -> None:
    """`python -m tests.folders` would change nothing in docs/models.md."""
    page = PAGE.read_text("utf-8")
    assert page == filled(page), "run `python -m tests.folders`"


def test_every_case_is_in_a_table_that_can_be_read() -> None:
    """Each case's words stand in the table, which has at most 60 rows."""
    rows = table().replace("`", "")
    assert len(rows.splitlines()) <= 62
    assert [case.name for case in all_cases() if case.holds not in rows] == []


def test_no_two_cases_share_a_name() -> None:
    """There are at least 120 cases, each with a name of its own."""
    names = [case.name for case in all_cases()]
    assert len(names) >= 120
    assert len(set(names)) == len(names)
