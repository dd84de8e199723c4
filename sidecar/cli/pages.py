"""Writing pages to a path given by the user; a path that cannot be written is a `ConfigError`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client_lib.own_folder import shown
from sidecar.config import ConfigError
from sidecar.files import check_replaceable, replace_file


def check_writable(path: Path) -> None:
    """Raise `ConfigError` if `path` cannot be written. Call it before long work.

    Neither creates nor changes the file.
    """
    with _as_config_error(path):
        check_replaceable(path)


def write(path: Path, page: str) -> None:
    """Write the page, replacing an older one. Raises `ConfigError` if it cannot be written."""
    with _as_config_error(path):
        replace_file(path, page)


@contextmanager
def _as_config_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{shown(path)} cannot be written: {error.strerror}") from error
