"""A progress bar that advances as replies arrive."""

import logging
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TypeVar

from client_lib.distribution import CLIENT, install_command

T = TypeVar("T")

_log = logging.getLogger(__name__)


def with_bar(steps: Iterable[T], total: int, *, show: bool | None) -> Iterable[T]:
    """Return the `total` steps, with a progress bar on stderr if `show` is true.

    None shows one if the effective level of this module's logger is INFO or DEBUG and tqdm is
    installed. Raises `ImportError` if `show` is true and tqdm is not installed.
    """
    if show is None:
        show = _log.getEffectiveLevel() in {logging.INFO, logging.DEBUG} and bool(find_spec("tqdm"))
    if not show:
        return steps
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - only if a bar is shown
    except ImportError as error:
        message = f"show_progress_bar=True needs tqdm: {install_command(CLIENT, 'compat')}"
        raise ImportError(message) from error
    bar: Iterable[T] = tqdm(steps, total=total, desc="Batches")
    return bar
