"""The table in docs/models.md, generated from the cases' expectations."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .case import Case, Served
from .catalogue import sections

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_OPENING, _CLOSING = "<!-- folders -->", "<!-- /folders -->"
# A compound name, with the value if it is a key, like "truncation_side: left".
_NAME = re.compile(r"\w+(?:[._]\w+)+/?(?:: \[?\w+\]?)?")
_SERVED: Mapping[Served, str] = {
    "graph": "our graph",
    "library": "the library's own path",
    "refused": "refused",
}


def filled(page: str) -> str:
    """Return the page with the table regenerated from the cases."""
    before, _, rest = page.partition(_OPENING)
    _, _, after = rest.partition(_CLOSING)
    return f"{before}{_OPENING}\n{table()}\n{_CLOSING}{after}"


def table() -> str:
    """Return the table in Markdown, with one row per section and outcome."""
    head = "| | what the folder holds | families | served by |", "| --- | --- | --- | --- |"
    return "\n".join((*head, *_rows()))


def _rows() -> Iterator[str]:
    for section, cases in sections().items():
        for served, words in _SERVED.items():
            alike = [case for case in cases if case.expected.served == served]
            if alike:
                holds = "; ".join(dict.fromkeys(case.holds for case in alike))
                yield f"| {section} | {_with_code(holds)} | {_families(alike)} | {words} |"


def _with_code(words: str) -> str:
    """Return the words with the names of files, keys and tensors formatted as code."""
    return _NAME.sub(r"`\g<0>`", words)


def _families(cases: list[Case]) -> str:
    return ", ".join(dict.fromkeys(case.family for case in cases))
