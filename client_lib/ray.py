"""Ray Data: a column of texts to one of vectors, by the sidecar of the node on which it runs.

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

# A batch may have to wait for all that goes before bulk work, or for a daemon that comes back.
_REQUEST_SECONDS = 600.0


class SidecarEmbedder:
    """An actor's class for `Dataset.map_batches`: adds `output_column`, float32 [n, d].

    `socket` is that of a daemon that somebody else runs on every node. Without one it is the
    daemon at the default socket, or, on a node where none answers there, one that the node's
    actors start together and that ends with the last of them; `serve` are its flags, as
    `sidecar serve` takes them. `model` is the name that a daemon has to serve. The other options
    are those of the client's `embed`; `timeout` bounds a request, in seconds.
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
        """Return the batch with its vectors.

        Raises `ValueError` where the column is missing, or the other one there already, and
        `TypeError` for a cell that is no text. Overload and a restart are waited for.
        """
        vectors = self._client.encode(self._texts(batch), **self._options)
        return {**batch, self._output_column: vectors}

    def close(self) -> None:
        """Let go of the daemon. An actor's end does the same."""
        self._client.close()
        if self._daemon is not None:
            self._daemon.close()

    def _texts(self, batch: Batch) -> list[str]:
        if self._column not in batch:
            known = ", ".join(map(repr, batch))
            raise ValueError(f"there is no column {self._column!r}, but {known}")
        if self._output_column in batch:
            raise ValueError(f"a column {self._output_column!r} is there already")
        texts: list[Any] = batch[self._column].tolist()
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                what = f"column {self._column!r} holds {type(text).__name__}, not a text"
                raise TypeError(
                    f"{what}, in row {row} of a batch: filter such rows out, or fill them"
                )
        return texts


def _folder_of_node() -> Path:
    """Return a folder of the session's, for this node alone: nodes may share a host."""
    # Here alone: who names a socket needs nothing of Ray.
    try:
        import ray  # noqa: PLC0415
        from ray._private import worker  # noqa: PLC0415 - its folder has no public name
    except ImportError as error:
        raise ImportError(
            f"Ray is missing on this node: {install_command(CLIENT, 'ray')}"
        ) from error
    node = ray.get_runtime_context().get_node_id()
    # Short: the path of a socket has to be.
    return Path(worker._global_node.get_session_dir_path()) / f"sidecar-{node[:12]}"  # noqa: SLF001
