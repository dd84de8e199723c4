"""What serving needs to be told, as plain values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from client_lib.wire.protocol import Limits
from sidecar.events import Selection
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.limits import QueueLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where to listen and how much to take on.

    `threads` inference threads; `bounds` of what may wait; `cache_bytes` of results that are
    kept; `memory_bytes` that peers cannot make the process exceed;
    `drain_seconds` to finish what was accepted; `hang_seconds` after which a daemon whose
    inference makes no progress is ended, where a service manager has no watchdog, half of whose
    time takes its place; `access` is for peers, `limits` bound one request, `max_in_flight` one
    connection; events of `selection` are written, to `log_target`.
    """

    socket: Path
    threads: int
    limits: Limits = field(default_factory=Limits)
    cache_bytes: int = 0
    memory_bytes: int = 2**40
    bounds: QueueLimits = field(default_factory=QueueLimits)
    access: AccessPolicy = field(default_factory=AccessPolicy)
    max_in_flight: int = 256
    drain_seconds: float = 30.0
    hang_seconds: float = 30.0
    log_target: str = "stdout"
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What one reading of the configuration comes to.

    `load` opens the models; it is called on a thread and may take minutes. `configured` has
    every setting by name, for saying what a reload has changed.
    """

    load: Callable[[], Sequence[ServedModel]]
    settings: ServeSettings
    configured: Mapping[str, object] = field(default_factory=dict)


Configure: TypeAlias = Callable[[], Setup]
"""Reads the configuration; called on a thread. What it raises says what is wrong with it."""
