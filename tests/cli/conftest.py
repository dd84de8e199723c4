"""What the tests of commands share."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium: the host's, or the one that playwright has installed.

    For one test: while playwright is open this thread has a running event loop, and no
    asyncio test could have its own.
    """
    api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with api.sync_playwright() as play:
        try:
            opened = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error:
            pytest.skip("no Chromium here")
        yield opened
        opened.close()
