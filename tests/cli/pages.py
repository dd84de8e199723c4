"""Assertions for every HTML page that a command writes."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        for name in ("aria-labelledby", "aria-describedby"):
            self.references.update(given.get(name, "").split())
        self.references.update(re.findall(r"url\(#([^)]*)\)", given.get("clip-path", "")))
        if tag == "use":
            self.references.add(given["xlink:href"].removeprefix("#"))


def assert_stands_alone(text: str) -> None:
    """Assert that a page has no script and no external reference, and that ids are unique."""
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    assert "#0" not in re.sub(r"#0067b1|#00795a", "", text)  # no colour was left to matplotlib
    parser = Ids()
    parser.feed(text)
    assert len(parser.ids) == len(set(parser.ids))
    assert parser.references <= set(parser.ids)


@contextmanager
def opened(page: Path, browser: Any, width: int, scheme: str) -> Iterator[Any]:
    """Open the page in a browser window; assert that it fetches nothing and logs no errors."""
    view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints, requests = [], []
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.on("request", lambda request: requests.append(request.url))
    view.goto(page.as_uri())
    yield view
    assert (complaints, requests) == ([], [page.as_uri()])
    view.close()


def assert_is_seen(view: Any, width: int, scheme: str, plots: Sequence[str]) -> None:
    """Assert that nothing scrolls sideways and that every plot is visible in the page's colours."""
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert view.locator("figure svg").count() == len(plots)
    for plot in view.locator("figure svg").all():
        assert plot.bounding_box()["width"] > 300
    for title in plots:
        assert view.get_by_role("img", name=title, exact=True).is_visible()
    ink = view.evaluate("getComputedStyle(document.body).color")
    inks = "[...document.querySelectorAll('svg text')].map(text => getComputedStyle(text).fill)"
    assert set(view.evaluate(inks)) == {ink}
    light = sum(map(int, re.findall(r"\d+", ink))) > 3 * 128
    assert light == (scheme == "dark")
