"""The queries that an operator may write, and what they mean."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.operate.query import (
    Condition,
    Query,
    QueryError,
    doubt,
    number,
    parse_condition,
    parse_time,
    text,
)
from sidecar.operate.records import Record

NOW = datetime(2026, 11, 22, 15, 30, tzinfo=timezone(timedelta(hours=2)))
OPERATORS = ("=", "!=", ">", ">=", "<", "<=")
FIELDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)


def matches(condition: str, **fields: object) -> bool:
    return parse_condition(condition).predicate()(fields)


@given(st.text())
def test_any_text_is_a_condition_or_a_clear_error(text: str) -> None:
    """Any text is either a usable condition or a `QueryError`."""
    with suppress(QueryError):
        condition = parse_condition(text)
        assert condition.predicate()({condition.field: 1}) in {True, False}


@given(FIELDS, st.sampled_from(OPERATORS), st.text().map(str.strip))
def test_a_condition_is_read_as_it_is_written(field: str, operator: str, value: str) -> None:
    """A condition survives a round trip through text, whatever its value."""
    condition = Condition(field, operator, value)
    assert parse_condition(str(condition)) == condition


@given(st.text())
def test_any_text_is_a_time_or_a_clear_error(text: str) -> None:
    """Any text is either a time with a zone or a `QueryError`."""
    with suppress(QueryError):
        assert parse_time(text, NOW).tzinfo is not None


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.sampled_from(OPERATORS))
def test_numbers_are_compared_as_numbers(left: float, right: float, operator: str) -> None:
    """Numbers compare as in Python, also if the record holds them as text."""
    python = {"=": left == right, "!=": left != right, ">": left > right,
              ">=": left >= right, "<": left < right, "<=": left <= right}  # fmt: skip
    assert matches(f"x{operator}{right!r}", x=left) == python[operator]
    assert matches(f"x{operator}{right!r}", x=repr(left)) == python[operator]


@pytest.mark.parametrize(
    ("condition", "fields", "expected"),
    [
        ("total_ms>9", {"total_ms": 10}, True),
        ("total_ms > 9", {"total_ms": 9}, False),
        ("rows==3", {"rows": 3.0}, True),
        ("code=overloaded", {"code": "overloaded"}, True),
        ("code!=overloaded", {"code": "draining"}, True),
        ("code!=overloaded", {}, False),  # a missing field never matches
        ("reason~time.*out$", {"reason": "the time ran out"}, True),
        ("reason~^time", {"reason": "the time ran out"}, False),
        ("traceback=null", {"traceback": None}, True),
        ("fatal=true", {"fatal": True}, True),
        ("fatal=1", {"fatal": True}, False),
        ('models~"e5"', {"models": ["e5", "bge"]}, True),
        ("code>5", {"code": "overloaded"}, False),  # text and numbers have no common order
        ("ts>=2026-11", {"ts": "2026-11-22T10"}, True),
        ("model=", {"model": ""}, True),
    ],
)
def test_comparisons(condition: str, fields: dict[str, object], *, expected: bool) -> None:
    """Each operator compares as documented, including at its boundaries."""
    assert matches(condition, **fields) == expected


@pytest.mark.parametrize("text", ["", "total_ms", "> 5", "total ms > 5", "a-b=1", "reason~("])
def test_what_is_no_condition_is_refused_by_name(text: str) -> None:
    """Text that is not a condition is refused with what was written and what can be."""
    with pytest.raises(QueryError, match=r"is not a (condition|regular expression)"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("1d12h", NOW - timedelta(hours=36)),
        ("90 s", NOW - timedelta(seconds=90)),
        ("now", NOW),
        ("today", datetime(2026, 11, 21, 22, tzinfo=UTC)),
        ("yesterday", datetime(2026, 11, 20, 22, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 21, 22, tzinfo=UTC)),
        ("2026-11-22T10:00", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("2026-11-22T10:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    """Times are durations, names or dates, by default in the operator's zone."""
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "2x", "h", "tomorrow", "99999999999999d", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Text that is not a time is refused with examples of what can be written."""
    with pytest.raises(QueryError, match="is not a time: write how long ago"):
        parse_time(text, NOW)


def test_all_parts_of_a_query_must_hold() -> None:
    """A record must match one of the events, every condition, the time and the level."""
    query = Query(
        events=["request.*", "batch.completed"],
        conditions=[Condition("rows", ">", "1"), Condition("model", "=", "m")],
        since=10.0,
        until=20.0,
        level="info",
    )
    good = {"event": "request.completed", "level": "info", "rows": 2, "model": "m"}
    asked = query.predicate()
    assert asked(Record(10.0, good))
    assert asked(Record(19.9, {**good, "event": "batch.completed", "level": "error"}))
    for at, changed in [
        (9.9, {}), (20.0, {}), (15.0, {"rows": 1}), (15.0, {"model": "n"}),
        (15.0, {"level": "debug"}), (15.0, {"event": "batch.complete"}), (15.0, {"level": None}),
    ]:  # fmt: skip
        assert not asked(Record(at, {**good, **changed}))


def test_a_query_of_nothing_matches_all() -> None:
    """An empty query matches every record."""
    assert Query().predicate()(Record(0.0, {"event": "x"}))


def test_a_name_that_nothing_has_is_doubted() -> None:
    """An unknown name is questioned with close matches; a glob counts if it matches any."""
    assert list(doubt("event", ["request.*"], {"request.failed"})) == []
    assert list(doubt("field", ["totl_ms", "x"], {"total_ms", "rows"})) == [
        "this version has no field 'totl_ms'; did you mean total_ms?",
        "this version has no field 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("90m", timedelta(minutes=90)),
        ("3h", timedelta(hours=3)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
        ("1W 2D 3H", timedelta(weeks=1, days=2, hours=3)),
        ("0s", timedelta()),
    ],
)
def test_each_unit_of_time_is_known(text: str, ago: timedelta) -> None:
    """Every unit of a duration is understood, in either case and combined."""
    assert parse_time(text, NOW) == NOW - ago


def test_a_part_of_a_query_is_asked_by_itself() -> None:
    """Each part of a query filters independently of the others."""
    record = Record(15.0, {"event": "x.y", "level": "warning"})
    for query, expected in (
        (Query(since=15.0), True),
        (Query(since=15.1), False),
        (Query(until=15.1), True),
        (Query(until=15.0), False),
        (Query(since=0.0, until=0.0), False),
        (Query(level="warning"), True),
        (Query(level="error"), False),
        (Query(level="debug"), True),
        (Query(events=["x.*"]), True),
        (Query(events=["x"]), False),
        (Query(events=["y", "x.?"]), True),
        (Query(conditions=[Condition("level", "~", "^warn")]), True),
    ):
        assert query.predicate()(record) is expected, query


def test_every_level_is_in_its_place() -> None:
    """A level selects itself and all more severe ones."""
    levels = ("debug", "info", "warning", "error", "critical")
    for least in levels:
        asked = Query(level=least).predicate()
        found = [level for level in levels if asked(Record(0.0, {"event": "x", "level": level}))]
        assert found == list(levels[levels.index(least) :])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5.0),
        (2.5, 2.5),
        ("5", 5.0),
        ("-.5e2", -50.0),
        ("+3.", 3.0),
        ("5 ", None),
        ("0x5", None),
        ("nan", None),
        ("inf", None),
        ("1_0", None),
        (True, None),
        (None, None),
        ([5], None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        ("9" * 400, None),
        ("٣", None),
    ],
)
def test_what_is_a_number(value: object, expected: float | None) -> None:
    """Finite numbers and their texts are numbers; booleans, nan and the rest are not."""
    assert number(value) == expected


def test_values_are_shown_as_they_are_written() -> None:
    """Text is shown unchanged, and anything else as JSON."""
    assert [text(value) for value in ("ä", 5, None, ["ä"], {"a": 1}, True)] == [
        "ä", "5", "null", '["ä"]', '{"a": 1}', "true",
    ]  # fmt: skip
    assert text({"a": {1}}).startswith("{")
