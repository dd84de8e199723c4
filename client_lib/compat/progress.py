"""A bar that moves as replies come in."""

import logging
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


def with_bar(steps: Iterable[T], total: int, *, show: bool | None) -> Iterable[T]:
    """Return `steps`, of which there are `total`, with a bar on standard error where `show` says.

    None says so where the effective level of this module's logger is INFO or DEBUG, and tqdm is
    installed. Raises `ImportError` where a bar is asked for and tqdm is not installed.
    """
    if show is None:
        show = _log.getEffectiveLevel() in {logging.INFO, logging.DEBUG} and bool(find_spec("tqdm"))
    if not show:
        return steps
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - only where a bar is shown
    except ImportError as error:
        message = "show_progress_bar=True needs tqdm: pip install 'sidecar[compat]'"
        raise ImportError(message) from error
    bar: Iterable[T] = tqdm(steps, total=total, desc="Batches")
    return bar
