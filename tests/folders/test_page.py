"""docs/models.md agrees with the expectations of the matrix."""

from .catalogue import all_cases
from .page import PAGE, filled, table


def test_the_page_holds_the_table_of_the_cases() -> None:
    """The table in docs/models.md is up to date with the cases."""
    page = PAGE.read_text("utf-8")
    assert page == filled(page), "run `python -m tests.folders`"


def test_every_case_is_in_a_table_that_can_be_read() -> None:
    """Every case's description is in the table, which has at most 60 rows."""
    rows = table().replace("`", "")
    assert len(rows.splitlines()) <= 62
    assert [case.name for case in all_cases() if case.holds not in rows] == []


def test_no_two_cases_share_a_name() -> None:
    """There are at least 120 cases, with unique names."""
    names = [case.name for case in all_cases()]
    assert len(names) >= 120
    assert len(set(names)) == len(names)
