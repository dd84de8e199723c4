"""Where a serving process sends its events."""

import os

from sidecar.config import ConfigError
from sidecar.events import journal
from sidecar.events.writer import Lines, Target

_STDOUT = 1


def target(name: str) -> Target:
    """Return the target called `name`. Raises `ConfigError` if it is a journal that is missing."""
    is_there = journal.SOCKET.is_socket()
    if name == "journal" and not is_there:
        raise ConfigError(f"SIDECAR_LOG_TARGET=journal: there is no socket at {journal.SOCKET}")
    is_ours = name == "auto" and journal.is_standard_output(os.environ)
    if name == "journal" or (is_ours and is_there):
        return journal.Journal()
    return Lines(_STDOUT)
