"""Embed Parquet files on a local two-node cluster, and print the results as JSON."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import ray
from pyarrow import parquet
from ray.cluster_utils import Cluster
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig
from ray.exceptions import RayTaskError

from client_lib.ray import SidecarEmbedder

_STORE_BYTES = 80 * 2**20
_ROWS, _FILES = 240, 8
_SECONDS = 60.0
_TEXTS = [f"{row}: {'a text of some words ' * (row % 6)}" for row in range(_ROWS)]


class Unlucky(SidecarEmbedder):
    """An actor that is killed at the first batch; the last row raises until `mended` exists."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self._folder = folder

    def __call__(self, batch: Any) -> Any:
        if _is_first(self._folder / "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if _ROWS - 1 in batch["id"] and not (self._folder / "mended").exists():
            _wait_for_others(self._folder)
            raise ValueError("out of luck")
        return super().__call__(batch)


def _is_first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _wait_for_others(folder: Path) -> None:
    # So that there is a checkpoint to resume from.
    deadline = time.monotonic() + _SECONDS
    while not checkpointed(folder) and time.monotonic() < deadline:
        time.sleep(0.05)


def checkpointed(folder: Path) -> int:
    """Return the number of rows that the failed job has checkpointed."""
    files = (folder / "checkpoint").rglob("*.parquet")
    return sum(parquet.read_metadata(file).num_rows for file in files)


def embed(folder: Path, serve: list[str]) -> None:
    context = DataContext.get_current()
    context.target_min_block_size, context.target_max_block_size = 1, 8_192  # one block per file
    context.checkpoint_config = CheckpointConfig(
        "id", str(folder / "checkpoint"), delete_checkpoint_on_success=False
    )
    ray.data.read_parquet(str(folder / "source")).map_batches(
        Unlucky, fn_constructor_kwargs={"folder": folder, "serve": serve}, batch_size=16,
        compute=ActorPoolStrategy(size=3), num_cpus=0, resources={"embedders": 1},
    ).write_parquet(str(folder / "out"))  # fmt: skip


def rows_of(output: Path) -> dict[str, Any]:
    table = parquet.read_table(output).sort_by("id")
    vectors = table["embedding"].combine_chunks()
    storage = getattr(vectors, "storage", vectors)
    return {
        "ids": table["id"].to_pylist(),
        "vectors": storage.flatten().to_numpy().astype("<f4").tobytes().hex(),
    }


def lives(log: Path) -> list[str]:
    """Return the starts and stops of a node's daemons, in order."""
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    return [event for event in events if event in {"server.listening", "server.stopped"}]


def processes(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
        and "serve" in process.info["cmdline"]
    ]


def main(artifact: str, folder: Path) -> None:
    serve = ["--embedding-model", artifact, "--cache-dir", str(folder / "c"), "--device", "cpu"]
    (folder / "source").mkdir()
    for rows in np.array_split(np.arange(_ROWS), _FILES):
        table = pa.table({"id": rows, "text": [_TEXTS[row] for row in rows]})
        parquet.write_table(table, folder / "source" / f"{rows[0]}.parquet")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        },
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, resources={"embedders": 2}, object_store_memory=_STORE_BYTES)
    session = Path(ray.init(address=cluster.address).address_info["session_dir"])
    result: dict[str, Any] = {"texts": _TEXTS}
    try:
        try:
            embed(folder, serve)
        except RayTaskError as error:
            result["failure"] = str(error)
        result["checkpointed"] = checkpointed(folder)
        (folder / "mended").touch()
        embed(folder, serve)
        result |= rows_of(folder / "out")
        result["killed"] = (folder / "killed").exists()
    finally:
        ray.shutdown()
        cluster.shutdown()
    _, left = psutil.wait_procs(processes(session), timeout=30)
    result["left"] = [process.pid for process in left]
    result["daemons"] = [lives(log) for log in session.glob("sidecar-*/log")]
    print(json.dumps(result))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
