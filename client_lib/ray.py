"""Embed a text column of a Ray dataset with the sidecar of the node that an actor runs on.

ray.data.read_parquet(src).map_batches(SidecarEmbedder, concurrency=n).write_parquet(dst)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from client_lib.address import default_socket
from client_lib.distribution import CLIENT, install_command
from client_lib.node import NodeDaemon, answers
from client_lib.sync import Client
from client_lib.wire.messages import Priority
from client_lib.wire.roles import Role

Batch: TypeAlias = Mapping[str, NDArray[Any]]

# A batch may wait for everything that goes before bulk work, or for a daemon that restarts.
_REQUEST_SECONDS = 600.0


class SidecarEmbedder:
    """An actor class for `Dataset.map_batches` that adds a column of vectors to each batch.

    It embeds with the daemon at `socket` or, without one, with the daemon at the default socket.
    If none answers there, the actors of the node start one together, which ends with the last of
    them.

    Args:
        column: The column of texts.
        output_column: The column to add, float32 [n, d].
        socket: Path of the socket of a daemon that is already running on every node.
        serve: Flags of `sidecar serve` for a daemon that the actors start.
        model: Name of a model that the daemon must serve. Defaults to its first embedding model.
        prompt_name: One of the model's prompts, prepended to each text.
        role: "query" or "document": selects the model's prompt for that role if `prompt_name` is
            not given.
        normalize: Whether to scale vectors to length 1. Defaults to the model's setting.
        dimensions: How many leading dimensions to keep. Defaults to all.
        priority: "bulk" to let interactive requests of any process go first, or "interactive".
        timeout: Seconds for each request; None means no limit.

    Raises:
        UntrustedDaemon: Another user's daemon listens at the default socket.
        ConnectionLost: The actors' daemon did not start.
        UntrustedFolder: The folder of the actors' daemon belongs to another user.
        ImportError: The actors need to start a daemon, but Ray is missing.
        TypeError: `timeout` is not a number.
        ValueError: `timeout` is not above 0.
    """

    def __init__(
        self,
        column: str = "text",
        output_column: str = "embedding",
        *,
        socket: str | None = None,
        serve: Sequence[str] = (),
        model: str | None = None,
        prompt_name: str | None = None,
        role: Role | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        priority: Priority = "bulk",
        timeout: float | None = _REQUEST_SECONDS,
    ) -> None:
        self._column = column
        self._output_column = output_column
        self._options: dict[str, Any] = {
            "model": model, "prompt_name": prompt_name, "role": role, "normalize": normalize,
            "dimensions": dimensions, "priority": priority,
        }  # fmt: skip
        path = Path(socket) if socket is not None else default_socket()
        self._daemon: NodeDaemon | None = None
        if socket is None and not answers(path):
            self._daemon = NodeDaemon(_folder_of_node(), serve)
            path = self._daemon.socket
        self._client = Client(path, timeout=timeout)

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Embed the texts of a batch.

        It waits for a daemon that restarts or is overloaded.

        Args:
            batch: The batch's columns by name.

        Returns:
            The columns of the batch, and that of its vectors.

        Raises:
            ValueError: The text column is missing, or the output column already exists.
            TypeError: A cell is not a string.
            SidecarError: As for `Client.encode`.
        """
        vectors = self._client.encode(self._texts(batch), **self._options)
        return {**batch, self._output_column: vectors}

    def close(self) -> None:
        """Release the daemon. The end of the actor does the same."""
        self._client.close()
        if self._daemon is not None:
            self._daemon.close()

    def _texts(self, batch: Batch) -> list[str]:
        if self._column not in batch:
            known = ", ".join(map(repr, batch))
            raise ValueError(f"no column {self._column!r}; the batch has {known}")
        if self._output_column in batch:
            raise ValueError(f"column {self._output_column!r} already exists")
        texts: list[Any] = batch[self._column].tolist()
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                what = f"column {self._column!r} holds {type(text).__name__}, not str"
                raise TypeError(
                    f"{what}, in row {row} of a batch: filter such rows out or fill them"
                )
        return texts


def _folder_of_node() -> Path:
    """Return a folder of Ray's session for this node only: nodes may share a host."""
    # Imported only here: with a `socket`, Ray is not needed.
    try:
        import ray  # noqa: PLC0415
        from ray._private import worker  # noqa: PLC0415 - its folder has no public name
    except ImportError as error:
        raise ImportError(
            f"Ray is missing on this node: {install_command(CLIENT, 'ray')}"
        ) from error
    node = ray.get_runtime_context().get_node_id()
    # Short, since the length of a socket's path is limited.
    return Path(worker._global_node.get_session_dir_path()) / f"sidecar-{node[:12]}"  # noqa: SLF001
