"""Results → Markdown: places on the pages of the documentation, and a page of everything.

A result is what `python -m bench COMMAND --json` prints, with its `command` and `date`. A place
is the text between two comments, the first of which says what to show:

    <!-- measured: overhead host tables=1,2 figures=1 plots=phases -->
    <!-- /measured -->

Without `tables`, all of them; with `tables=none`, none. `figures` and `plots` are shown only if
asked for: all of them, or those named, figures by number. `host` adds the date and the host.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

from bench.report import told

Result: TypeAlias = Mapping[str, Any]

_OPENING, _CLOSING = "<!-- measured:", "<!-- /measured -->"
_PLACE = re.compile(rf"({_OPENING}(.*?)-->\n)(.*?)({_CLOSING})", re.DOTALL)
_HEAD = """\
# Measured

`python -m bench refresh` ran the commands below, one after another, and made this page and its
plots from their output, which is in the folder of the plots as JSON, with every value. Sides that a
table or a plot compares were measured in turn, in one run, on the host named with them. Values are
medians; a range, a bar's whisker or a line's band shows the spread.
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
    yield _when_and_where(result)
    if result["failed"]:
        yield f"**Failed: {_escaped(', '.join(result['failed']))}**"
    yield from _tables(result, result["tables"])
    yield from _figures(result["figures"])
    skipped = result["skipped"].items()
    yield "\n".join(f"- left out: {_escaped(each)} ({_escaped(why)})" for each, why in skipped)
    yield from _plots(name, result["charts"], plots)


def _place(asked: str, results: Mapping[str, Result], plots: PurePath) -> Iterator[str]:
    marker = f"{_OPENING}{asked}-->"
    name, *options = asked.split() or [""]
    if name not in results:
        raise MarkerError(f"{marker}: nothing of that name has been measured")
    result = results[name]
    asked_for = dict(option.partition("=")[::2] for option in options)
    if unknown := asked_for.keys() - {"tables", "figures", "plots", "host"}:
        raise MarkerError(f"{marker}: what is {', '.join(sorted(unknown))}?")
    yield _command(result)
    if "host" in asked_for:
        yield _when_and_where(result)
    if asked_for.get("tables") != "none":
        yield from _tables(result, _chosen(marker, "tables", result["tables"], asked_for))
    if "figures" in asked_for:
        figures = _chosen(marker, "figures", list(result["figures"].items()), asked_for)
        yield from _figures(dict(figures))
    if "plots" in asked_for:
        charts = {chart["name"]: chart for chart in result["charts"]}
        yield from _plots(name, _chosen(marker, "plots", charts, asked_for), plots)


def _chosen(
    marker: str,
    kind: str,
    there: Sequence[Any] | Mapping[str, Any],
    asked_for: Mapping[str, str],
) -> list[Any]:
    """Return what is asked for of `there`, by number from 1 or by name: all of it by default."""
    by_name = there if isinstance(there, Mapping) else dict(_numbered(there))
    names = asked_for.get(kind, "")
    wanted = names.split(",") if names else list(by_name)
    if missing := [each for each in wanted if each not in by_name]:
        known = ", ".join(by_name) or "none"
        raise MarkerError(f"{marker}: no {kind} {', '.join(missing)}; there are: {known}")
    return [by_name[each] for each in wanted]


def _numbered(values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for number, value in enumerate(values, start=1):
        yield str(number), value


def _command(result: Result) -> str:
    return f"`{result['command']}` — {_escaped(result['title'])}"


def _when_and_where(result: Result) -> str:
    host = result["host"]
    return (
        f"{result['date']}, on {_escaped(host['cpu'])}, {host['cores']} cores "
        f"({', '.join(host['isa'])}), load {host['load_average']:.1f} at the end."
    )


def _tables(result: Result, tables: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for table in tables:
        if table["title"] != result["title"]:
            yield f"**{_escaped(table['title'])}**"
        yield _grid(table["head"], table["rows"])


def _figures(figures: Mapping[str, Any]) -> Iterator[str]:
    if figures:
        yield _grid(("", ""), [(name, told(value)) for name, value in figures.items()])


def _plots(name: str, charts: Iterable[Mapping[str, Any]], plots: PurePath) -> Iterator[str]:
    for chart in charts:
        about = _escaped(chart["about"]).replace("[", "(").replace("]", ")")
        yield f"![{about}]({plots / plot_name(name, chart)}.svg)"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Return `text` as Markdown that shows it, in a cell or on a line."""
    return " ".join(text.split("\n")).replace("<", "&lt;").replace("|", r"\|")
