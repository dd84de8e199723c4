"""Where the events of a process that serves go."""

import os

from sidecar.config import ConfigError
from sidecar.events import journal
from sidecar.events.writer import Lines, Target

_STDOUT = 1


def target(name: str) -> Target:
    """Return where events go. Raises `ConfigError` for a journal that is not there."""
    is_there = journal.SOCKET.is_socket()
    if name == "journal" and not is_there:
        raise ConfigError(f"SIDECAR_LOG_TARGET=journal: there is no socket at {journal.SOCKET}")
    is_ours = name == "auto" and journal.is_standard_output(os.environ)
    if name == "journal" or (is_ours and is_there):
        return journal.Journal()
    return Lines(_STDOUT)
