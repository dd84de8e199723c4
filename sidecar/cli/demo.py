"""`sidecar demo`: start a daemon, load it with clients, search and rerank, and show the results."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from client_lib import Client, EmbedReply
from client_lib.wire.errors import ConnectionLost
from sidecar.cli.console import Console
from sidecar.cli.demo_crowd import run_crowd
from sidecar.cli.demo_report import Outcome, render
from sidecar.cli.exits import EX_OK
from sidecar.lines import numbered_lines

_START_SECONDS = 300.0
_STOP_SECONDS = 15.0
_CLIENTS = 4
_LONE_REQUESTS = 20
_QUERIES = (
    "why is my computer program crashing",
    "animals with unusual circulation",
    "how can I get my money back",
)


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("demo", help="start a daemon, use it and show the results")
    parser.add_argument("--embedding-model", help="folder, artifact or hub id")
    parser.add_argument("--reranker-model", help="folder, artifact or hub id of a cross-encoder")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo in a temporary folder, which is removed afterwards; return 0."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as place:
        folder = Path(place)
        with console.status("starting a daemon: quantizing the model, comparing it with FP32"):
            outcome = _run_clients(folder, _serve_flags(arguments))
    console.print(render(outcome))
    return EX_OK


def _serve_flags(arguments: argparse.Namespace) -> list[str]:
    named = {
        "--embedding-model": arguments.embedding_model,
        "--reranker-model": arguments.reranker_model,
    }
    return [part for flag, name in named.items() if name for part in (flag, name)]


def _run_clients(folder: Path, flags: list[str]) -> Outcome:
    socket, log = folder / "sidecar.sock", folder / "events.jsonl"
    texts = resources.files("sidecar.cli").joinpath("demo_texts.txt").read_text().splitlines()
    with _daemon(folder, socket, log, flags), Client(socket, timeout=_START_SECONDS) as client:
        answers = run_crowd(socket, texts, _CLIENTS)
        vectors = np.stack([answer.vector for answer in answers])
        lone = [_timed(client, texts[0]) for _ in range(_LONE_REQUESTS)]
        return Outcome(
            texts=texts,
            queries=_QUERIES,
            answers=answers,
            lone_seconds=[seconds for seconds, _ in lone],
            same_bytes=all(r.vectors.tobytes() == vectors[0].tobytes() for _, r in lone),
            query_vectors=client.encode(_QUERIES),
            vectors=vectors,
            rerank=client.rerank(_QUERIES[0], texts, top_n=3),
            status=client.status(),
            events=[json.loads(line) for _, line in numbered_lines(log, ConnectionLost)],
        )


def _timed(client: Client, text: str) -> tuple[float, EmbedReply]:
    started = perf_counter()
    reply = client.embed([text])
    return perf_counter() - started, reply


@contextmanager
def _daemon(folder: Path, socket: Path, log: Path, flags: list[str]) -> Iterator[None]:
    """Run `sidecar serve` during the block. Raises `ConnectionLost` unless it exits with 0."""
    command = [sys.executable, "-m", "sidecar", "serve", "--socket", str(socket)]
    command += ["--cache-dir", str(folder / "cache"), "--log-level", "info", *flags]
    with log.open("wb") as events:
        process = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
            command, stdout=events, stderr=subprocess.PIPE, env=_environ()
        )
    try:
        _await_ready(process, socket)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=_STOP_SECONDS)
    if process.returncode != EX_OK:
        raise ConnectionLost(f"the daemon exited with {process.returncode}: {stderr.decode()}")


def _environ() -> dict[str, str]:
    # The demo shows the defaults, whatever is set in this shell.
    settings = ("SIDECAR_", "USE_QUANTIZATION", "QUANTIZATION_CONFIG")
    return {k: v for k, v in os.environ.items() if not k.startswith(settings)}


def _await_ready(process: subprocess.Popen[bytes], socket: Path) -> None:
    deadline = perf_counter() + _START_SECONDS
    while perf_counter() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            stderr = process.stderr.read().decode().strip()
            raise ConnectionLost(f"the daemon did not start: {stderr}")
        try:
            with Client(socket, timeout=0.2) as client:
                client.ping()
        except (TimeoutError, ConnectionError):
            continue
        return
    raise ConnectionLost(f"the daemon was not ready within {_START_SECONDS:.0f} s")
