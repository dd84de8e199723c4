"""Templates and their values → one HTML page that needs no network and no other file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jinja2

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("sidecar.operate", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline number: its name, its value, and what it is about."""

    name: str
    value: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; `nothing` is shown if there are none.

    `marks` maps the text of cells that stand out to their style.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    nothing: str
    marks: Mapping[str, str] = field(default_factory=dict)


def render_page(template: str, **values: Any) -> str:
    """Return the page; `template` is a path below this package's parent."""
    return _TEMPLATES.get_template(template).render(values)


def moment(seconds: float) -> str:
    """Format a time since the epoch as a date and a time of day in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
