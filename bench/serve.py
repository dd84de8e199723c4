"""Texts a second through the daemon, against sentence-transformers in the same process.

One text a request, closed-loop clients, mixed lengths. The other side is what an application
does today: sentence-transformers in FP32, batches of 16 in order of arrival.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.daemon import pause, running
from bench.report import Result, Side
from client_lib import AsyncClient
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate

_BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/load-mixed/texts.jsonl"))
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)


def measure(arguments: argparse.Namespace) -> Result:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds

    lines = arguments.data.read_text("utf-8").splitlines()[: arguments.texts]
    texts = list({json.loads(line)["text"]: None for line in lines})  # equal ones would be shared
    peer = SentenceTransformer(str(locate(arguments.model)), device="cpu")
    ours, theirs = [], []
    with running("--embedding-model", arguments.model) as socket:
        asyncio.run(_crowd(socket, texts[:64], arguments.clients))
        peer.encode(texts[:64], batch_size=_BATCH)
        for _ in range(arguments.rounds):
            pause()
            seconds, vectors = _timed_daemon(socket, texts, arguments.clients)
            ours.append(len(texts) / seconds)
            pause()
            seconds, reference = _timed_peer(peer, texts)
            theirs.append(len(texts) / seconds)
    cosines = (vectors * reference).sum(axis=1)
    sidecar = Side(f"sidecar int8, {arguments.clients} clients", "texts/s", ours)
    other = Side("sentence-transformers fp32, arrival batches of 16", "texts/s", theirs)
    return Result(
        title=f"{arguments.model}, {len(texts)} texts of mixed length",
        sides=(sidecar, other),
        figures={
            "ratio of medians": sidecar.median / other.median,
            "cosine to FP32, mean": float(cosines.mean()),
            "cosine to FP32, min": float(cosines.min()),
        },
    )


def _timed_daemon(
    socket: Path, texts: list[str], clients: int
) -> tuple[float, NDArray[np.float32]]:
    started = time.perf_counter()
    vectors = asyncio.run(_crowd(socket, texts, clients))
    return time.perf_counter() - started, vectors


def _timed_peer(peer: Any, texts: list[str]) -> tuple[float, NDArray[np.float32]]:
    # One call a batch: a server cannot sort texts that have not arrived yet.
    started = time.perf_counter()
    batches = [
        peer.encode(texts[start : start + _BATCH], batch_size=_BATCH)
        for start in range(0, len(texts), _BATCH)
    ]
    return time.perf_counter() - started, np.concatenate(batches)


async def _crowd(socket: Path, texts: list[str], clients: int) -> NDArray[np.float32]:
    vectors: dict[int, NDArray[np.float32]] = {}
    todo = iter(enumerate(texts))
    await asyncio.gather(*(_client(socket, todo, vectors) for _ in range(clients)))
    return np.stack([vectors[i] for i in range(len(texts))])


async def _client(
    socket: Path, todo: Iterator[tuple[int, str]], vectors: dict[int, NDArray[np.float32]]
) -> None:
    async with AsyncClient(socket, timeout=120) as client:
        for index, text in todo:
            vectors[index] = (await client.embed([text])).vectors[0]
