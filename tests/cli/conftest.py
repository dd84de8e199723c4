"""Fixtures shared by the tests of commands."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium, from the host or as installed by playwright.

    Function-scoped: while playwright is open, this thread has a running event loop, so that
    asyncio tests could not start their own.
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
