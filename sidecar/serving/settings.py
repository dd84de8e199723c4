"""The settings of serving, as plain values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from client_lib.wire.protocol import Limits
from sidecar import defaults
from sidecar.events import Selection
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.limits import QueueLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where to listen, and the limits to serve within.

    `threads`: inference threads. `limits` apply to each request, `max_in_flight` to each
    connection, `access` to each peer, `bounds` to each lane of the queue. `cache_bytes`: size of
    the result cache. `memory_bytes`: the ceiling that peers cannot make the process exceed.
    `drain_seconds`: time to finish accepted requests. `hang_seconds`: exit if inference makes no
    progress for this long; under a service manager's watchdog, half of its timeout applies
    instead. Events of `selection` are written to `log_target`.
    """

    socket: Path
    threads: int
    limits: Limits = field(default_factory=Limits)
    cache_bytes: int = 0
    memory_bytes: int = 2**40
    bounds: QueueLimits = field(default_factory=QueueLimits)
    access: AccessPolicy = field(default_factory=AccessPolicy)
    max_in_flight: int = 256
    drain_seconds: float = defaults.DRAIN_SECONDS
    hang_seconds: float = defaults.HANG_SECONDS
    log_target: str = "stdout"
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The result of reading the configuration once.

    `load` opens the models; it is called on a thread and may take minutes. `configured` maps
    setting names to values, to report what a reload has changed.
    """

    load: Callable[[], Sequence[ServedModel]]
    settings: ServeSettings
    configured: Mapping[str, object] = field(default_factory=dict)


Configure: TypeAlias = Callable[[], Setup]
"""Reads the configuration. Called on a thread; its exceptions say what is wrong."""
