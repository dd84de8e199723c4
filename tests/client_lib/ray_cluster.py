"""Two nodes of a local cluster embed a Parquet file; prints what came of it as JSON."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import ray
from pyarrow import parquet
from ray.cluster_utils import Cluster

from client_lib.ray import SidecarEmbedder

_STORE_BYTES = 80 * 2**20
_ROWS = 240
_TEXTS = [f"{row}: {'a text of some words ' * (row % 6)}" for row in range(_ROWS)]


class Killed(SidecarEmbedder):
    """One of the actors is killed at its first batch."""

    def __init__(self, flag: Path, **options: Any) -> None:
        super().__init__(**options)
        self._flag = flag

    def __call__(self, batch: Any) -> Any:
        try:
            self._flag.touch(exist_ok=False)
        except FileExistsError:
            return super().__call__(batch)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Failing(SidecarEmbedder):
    """Raises at one row, until a file is there."""

    def __init__(self, flag: Path, **options: Any) -> None:
        super().__init__(**options)
        self._flag = flag

    def __call__(self, batch: Any) -> Any:
        if _ROWS - 1 in batch["id"] and not self._flag.exists():
            raise ValueError("out of luck")
        return super().__call__(batch)


def embed(source: Path, output: Path, actor: type, **options: Any) -> None:
    ray.data.read_parquet(str(source), override_num_blocks=8).map_batches(
        actor, fn_constructor_kwargs=options, batch_size=16, concurrency=3, num_cpus=0,
        resources={"embedders": 1},
    ).write_parquet(str(output))  # fmt: skip


def rows_of(output: Path) -> dict[str, Any]:
    table = parquet.read_table(output).sort_by("id")
    vectors = table["embedding"].combine_chunks()
    storage = getattr(vectors, "storage", vectors)
    return {
        "ids": table["id"].to_pylist(),
        "vectors": storage.flatten().to_numpy().astype("<f4").tobytes().hex(),
    }


def processes(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
        and "serve" in process.info["cmdline"]
    ]


def main(artifact: str, folder: Path) -> None:
    serve = ["--embedding-model", artifact, "--cache-dir", str(folder / "c"), "--device", "cpu"]
    source = folder / "source.parquet"
    parquet.write_table(pa.table({"id": range(_ROWS), "text": _TEXTS}), source, row_group_size=30)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": _STORE_BYTES},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, resources={"embedders": 2}, object_store_memory=_STORE_BYTES)
    session = Path(ray.init(address=cluster.address).address_info["session_dir"])
    told: dict[str, Any] = {"texts": _TEXTS}
    try:
        embed(source, folder / "killed", Killed, flag=folder / "flag", serve=serve)
        told["killed"] = rows_of(folder / "killed")
        told["was killed"] = (folder / "flag").exists()
        logs = [path.read_text() for path in session.glob("sidecar-*/log")]
        told["starts"] = [log.count('"event":"server.listening"') for log in logs]
    finally:
        ray.shutdown()
        cluster.shutdown()
    _, left = psutil.wait_procs(processes(session), timeout=30)
    told["left"] = [process.pid for process in left]
    print(json.dumps(told))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
