"""What puts the daemon behind the interfaces of other libraries, one module a library.

Each needs the extra that is called after it: `pip install 'sidecar[langchain]'`.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Name the extra that brings what the imports of this block do not find."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install 'sidecar[{extra}]'"
        raise ImportError(message, name=error.name) from error
