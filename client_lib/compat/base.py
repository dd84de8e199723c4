"""Base of both classes: a connection to the daemon and a model that it serves."""

import os
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from client_lib.compat.refusals import refuse_attribute, refuse_other_length
from client_lib.compat.served import Task, find
from client_lib.sync import Client

if TYPE_CHECKING:
    import torch


class Remote:
    """A model served by a daemon.

    Args:
        asked: The model's name or path; None selects the daemon's first model for `task`.
        task: What the model is for: "embed" or "rerank".
        device: Where tensors are placed; None is the CPU.
        socket: Path of the daemon's socket; by default that of `Client`.
        timeout: Seconds per request; None means no limit.

    Raises:
        UnknownModel: The daemon does not serve the model.
        ConnectionLost: No daemon answered in time.
    """

    def __init__(
        self,
        asked: str | os.PathLike[str] | None,
        task: Task,
        device: "str | torch.device | None",
        socket: str | os.PathLike[str] | None,
        timeout: float | None,
    ) -> None:
        self.device = device
        with Client(socket, timeout=timeout) as client:
            self._served = find(client, asked, task)
        # It connects with the first call, so a constructor that raises leaves nothing open.
        self._client = Client(socket, timeout=timeout)

    @property
    def max_seq_length(self) -> int:
        """Maximum number of tokens per text, including special tokens; set by the daemon."""
        return self._served.max_tokens

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        refuse_other_length("max_seq_length", value, self._served)

    def get_max_seq_length(self) -> int:
        """Return `max_seq_length`."""
        return self.max_seq_length

    def close(self) -> None:
        """Close the connection to the daemon."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> NoReturn:
        refuse_attribute(self, name)
