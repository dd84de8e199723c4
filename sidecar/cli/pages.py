"""Writes a page where the user wants it; a path that cannot be written is a setting to mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client_lib.own_folder import shown
from sidecar.config import ConfigError
from sidecar.files import check_replaceable, replace_file


def check_writable(path: Path) -> None:
    """Raise `ConfigError` where `path` cannot be written: before the work, whose page it will be.

    A page that is there already stays as it is, and none is left where there was none.
    """
    with _told(path):
        check_replaceable(path)


def write(path: Path, page: str) -> None:
    """Write the page, in place of an older one. Raises `ConfigError` where that cannot be."""
    with _told(path):
        replace_file(path, page)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{shown(path)} cannot be written: {error.strerror}") from error
