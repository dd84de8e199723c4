"""Templates and what is put into them → one page that needs no network and no other file."""

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
    """A number that stands on its own, and what it is."""

    name: str
    value: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as people read them; `nothing` is said where there is none.

    `marks` names the style of cells that stand out, by what is in them.
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
    """Return a time since the epoch as a date and a time of day."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
