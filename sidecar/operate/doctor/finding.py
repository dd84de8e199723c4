"""What a check found, how severe it is, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """OK and NOTE need no action; a WARNING costs something; an ERROR prevents operation."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` found, with figures, and the advice that follows, if any."""

    check: str
    severity: Severity
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """The findings that explain one symptom."""

    symptom: str
    findings: tuple[Finding, ...]


def ok(check: str, found: str) -> Finding:
    """Return a finding that all is as it should be."""
    return Finding(check, Severity.OK, found)


def note(check: str, found: str, advice: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(check, Severity.NOTE, found, advice)


def warning(check: str, found: str, advice: str) -> Finding:
    """Return a finding that costs speed, accuracy or requests."""
    return Finding(check, Severity.WARNING, found, advice)


def error(check: str, found: str, advice: str) -> Finding:
    """Return a finding that prevents operation."""
    return Finding(check, Severity.ERROR, found, advice)


def worst(sections: Iterable[Section]) -> Severity:
    """Return the highest severity found."""
    return max((f.severity for s in sections for f in s.findings), default=Severity.OK)
