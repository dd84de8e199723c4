"""PURE: an operator's query for records, parsed from text. `now` is an argument."""

import json
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase, translate
from math import isfinite
from typing import Any

from sidecar.operate.records import Record

Fields = Mapping[str, Any]

LEVELS = ("debug", "info", "warning", "error", "critical")

_CONDITION = re.compile(r"\s*([A-Za-z_]\w*)\s*(!=|>=|<=|==?|>|<|~)(.*)", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_AGO = re.compile(r"(\d+)\s*([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class QueryError(ValueError):
    """The query cannot be parsed; the message says what can be written."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a record's field with a value: `=`, `!=`, `>`, `>=`, `<`, `<=`, or `~`.

    Numbers are compared as numbers, everything else as text; `~` searches for a regular
    expression. A record without the field does not match.
    """

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {self.value}"

    def predicate(self) -> Callable[[Fields], bool]:
        """Return a function that checks whether fields match."""
        test = _search(self.value) if self.operator == "~" else _comparison(self)

        def matches(fields: Fields) -> bool:
            return self.field in fields and test(fields[self.field])

        return matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A filter: one of `events` (globs; none: any), every condition, and the time must match.

    `since` (inclusive) and `until` (exclusive) are seconds since the epoch; `level` is the minimum.
    """

    events: Sequence[str] = ()
    conditions: Sequence[Condition] = ()
    since: float | None = None
    until: float | None = None
    level: str | None = None

    def predicate(self) -> Callable[[Record], bool]:
        """Return a function that checks whether a record matches."""
        conditions = [condition.predicate() for condition in self.conditions]
        named = re.compile("|".join(map(translate, self.events))).match if self.events else None
        levels = LEVELS[LEVELS.index(self.level) :] if self.level else None
        since, until = self.since, self.until

        def matches(record: Record) -> bool:
            fields = record.fields
            return (
                (named is None or named(fields["event"]) is not None)
                and (since is None or record.at >= since)
                and (until is None or record.at < until)
                and (levels is None or fields.get("level") in levels)
                and all(condition(fields) for condition in conditions)
            )

        return matches


def parse_condition(text: str) -> Condition:
    """Parse a condition such as "total_ms>50". Raises `QueryError`."""
    if (match := _CONDITION.fullmatch(text)) is None:
        raise QueryError(
            f"{text!r} is not a condition: write FIELD, one of = != > >= < <= ~, and a value, "
            "such as 'total_ms>50'"
        )
    field, comparison, value = match.groups()
    condition = Condition(field, comparison.replace("==", "="), value.strip())
    condition.predicate()  # rejects a bad regular expression now
    return condition


def parse_time(text: str, now: datetime) -> datetime:
    """Return the time that `text` means at `now`, which has a time zone. Raises `QueryError`.

    `text` is a duration before now (`90s`, `2h`, `1d12h`), an ISO 8601 date or time (in `now`'s
    zone unless it names its own), `now`, `today` or `yesterday`.
    """
    word = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    try:
        if word in named:
            return named[word]
        if _AGO.sub("", word).strip() == "" and (parts := _AGO.findall(word)):
            return now - sum((timedelta(**{_UNITS[u]: int(n)}) for n, u in parts), timedelta())
        moment = datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise QueryError(
            f"{text!r} is not a time: write how long ago (2h, 1d12h), a date or time "
            "(2026-11-22, 2026-11-22T10:00), today or yesterday"
        ) from None


def doubt(kind: str, given: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """Yield a warning for each name, or glob, in `given` that matches none of `known`.

    Another version may know it, so the query still runs; but if it is misspelt, the answer is
    empty, which reads as good news.
    """
    for name in given:
        if not any(fnmatchcase(each, name) for each in known):
            close = get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            yield f"this version has no {kind} {name!r}{hint}"


def number(value: Any) -> float | None:
    """Return `value` as a float if it is a finite number, or the text of one; otherwise None."""
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value) else None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if value is not None and isfinite(value) else None
    except OverflowError:
        return None


def text(value: Any) -> str:
    """Return `value` as it is compared and shown: text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _search(pattern: str) -> Callable[[Any], bool]:
    try:
        search = re.compile(pattern).search
    except (re.error, OverflowError, RecursionError) as error:
        raise QueryError(f"{pattern!r} is not a regular expression: {error}") from None
    return lambda value: search(text(value)) is not None


def _comparison(condition: Condition) -> Callable[[Any], bool]:
    compare, wanted = _COMPARISONS[condition.operator], number(condition.value)
    equality = condition.operator in {"=", "!="}

    def test(value: Any) -> bool:
        given = number(value)
        if given is not None and wanted is not None:
            return compare(given, wanted)
        # Numbers and text have no common order; they can only be equal or not.
        comparable = equality or (given is None and wanted is None)
        return comparable and compare(text(value), condition.value)

    return test
