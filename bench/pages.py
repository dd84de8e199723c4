"""Results → Markdown: a page of all of them, and the places of another page that show some.

A result is what `python -m bench COMMAND --json` prints, with its `command` and `date`. A place
is what stands between two comments, of which the first says what:

    <!-- measured: overhead tables=1,2 figures plots -->
    <!-- /measured -->

Without `tables` all of them; `figures` and `plots` only where they are asked for.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

from bench.report import told

Result: TypeAlias = Mapping[str, Any]

_OPENING, _CLOSING = "<!-- measured:", "<!-- /measured -->"
_PLACE = re.compile(rf"({_OPENING}(.*?)-->\n)(.*?)({_CLOSING})", re.DOTALL)
_TABLES = re.compile(r"tables=(\d+(?:,\d+)*)")
_HEAD = """\
# Measured

`python -m bench refresh` runs the commands below, one after the other, and makes this page and its
plots of what they print; `--render` makes them anew of what has been measured, which lies beside
the plots as JSON, with every value. Whatever is compared in a table or a plot was measured in
turn, in one run, on the host that is named with it. Values are medians; a range, or a bar's
whisker, or a line's band, tells the spread.
"""


class MarkerError(Exception):
    """A place asks for what there is not, or does not end; the message names it."""


def page(results: Mapping[str, Result], plots: PurePath) -> str:
    """Return the page of all `results`, by name; `plots` is their folder as it is linked to."""
    contents = [f"- [{name}](#{name}): {_escaped(each['title'])}" for name, each in results.items()]
    parts = [_HEAD.rstrip(), "\n".join(contents)]
    for name, result in results.items():
        parts += [f"## {name}", *_section(name, result, plots)]
    return "\n\n".join(filter(None, parts)) + "\n"


def fill(text: str, results: Mapping[str, Result], plots: PurePath) -> str:
    """Return `text` with its places filled from `results`; what was there before is gone.

    Raises `MarkerError`.
    """
    if not text.count(_OPENING) == text.count(_CLOSING) == len(_PLACE.findall(text)):
        raise MarkerError(f"every `{_OPENING} … -->` needs a `{_CLOSING}` on a line below it")

    def filled(place: re.Match[str]) -> str:
        opening, asked, _, closing = place.groups()
        return "\n\n".join([opening.rstrip(), *_place(asked, results, plots), closing])

    return _PLACE.sub(filled, text)


def plot_name(name: str, chart: Mapping[str, Any]) -> str:
    """Return the stem of the files with a chart of the result `name`."""
    return f"{name}-{chart['name']}"


def _section(name: str, result: Result, plots: PurePath) -> Iterator[str]:
    yield _command(result)
    yield f"{result['date']}, on {_host(result['host'])}."
    if result["failed"]:
        yield f"**Failed: {_escaped(', '.join(result['failed']))}**"
    yield from _tables(result, result["tables"])
    yield from _figures(result)
    skipped = result["skipped"].items()
    yield "\n".join(f"- left out: {_escaped(each)} ({_escaped(why)})" for each, why in skipped)
    yield from _plots(name, result, plots)


def _place(asked: str, results: Mapping[str, Result], plots: PurePath) -> Iterator[str]:
    marker = f"{_OPENING}{asked}-->"
    name, *options = asked.split() or [""]
    if name not in results:
        raise MarkerError(f"{marker}: nothing of that name has been measured")
    result = results[name]
    tables = result["tables"]
    for option in options:
        if match := _TABLES.fullmatch(option):
            tables = _chosen(marker, result["tables"], map(int, match[1].split(",")))
        elif option not in {"figures", "plots"}:
            raise MarkerError(f"{marker}: what is {option}?")
    yield _command(result)
    yield from _tables(result, tables)
    if "figures" in options:
        yield from _figures(result)
    if "plots" in options:
        yield from _plots(name, result, plots)


def _chosen(marker: str, tables: Sequence[Any], numbers: Iterable[int]) -> list[Any]:
    chosen = []
    for number in numbers:
        if not 1 <= number <= len(tables):
            raise MarkerError(f"{marker}: there is no table {number}; there are {len(tables)}")
        chosen.append(tables[number - 1])
    return chosen


def _command(result: Result) -> str:
    return f"`{result['command']}` — {_escaped(result['title'])}"


def _host(host: Mapping[str, Any]) -> str:
    return (
        f"{_escaped(host['cpu'])}, {host['cores']} cores ({', '.join(host['isa'])}), "
        f"load {host['load_average']:.1f} at the end"
    )


def _tables(result: Result, tables: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for table in tables:
        if table["title"] != result["title"]:
            yield f"**{_escaped(table['title'])}**"
        yield _grid(table["head"], table["rows"])


def _figures(result: Result) -> Iterator[str]:
    if result["figures"]:
        rows = [(name, told(value)) for name, value in result["figures"].items()]
        yield _grid(("", ""), rows)


def _plots(name: str, result: Result, plots: PurePath) -> Iterator[str]:
    for chart in result["charts"]:
        about = _escaped(chart["about"]).replace("[", "(").replace("]", ")")
        yield f"![{about}]({plots / plot_name(name, chart)}.svg)"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Return `text` as Markdown that shows it, in a cell or on a line."""
    return " ".join(text.split("\n")).replace("<", "&lt;").replace("|", r"\|")
