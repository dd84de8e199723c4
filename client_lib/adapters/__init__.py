"""Adapters that put the daemon behind the interfaces of other libraries, one module each.

Each needs the extra of the same name, such as
`pip install 'embedding-sidecar-client[langchain]'`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from client_lib.distribution import CLIENT, install_command


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a failed import in the block into an `ImportError` that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: {install_command(CLIENT, extra)}"
        raise ImportError(message, name=error.name) from error
