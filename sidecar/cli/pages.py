"""Writes a page where the user wants it; a path that cannot be written is a setting to mend."""

from pathlib import Path

from sidecar.config import ConfigError


def check_writable(path: Path) -> None:
    """Raise `ConfigError` where `path` cannot be written: before the work, whose page it will be.

    A page that is there already stays as it is, and none is left where there was none.
    """
    is_new = not path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise _refusal(path, error) from error
    if is_new:
        path.unlink()


def write(path: Path, page: str) -> None:
    """Write the page. Raises `ConfigError` where that cannot be."""
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written: {error.strerror}")
