"""Ray Data's actors on one node: texts a second of one actor and of two, on the node's sidecar.

What counts is the time from the first batch's begin to the last one's end: how long Ray takes to
start a cluster and its actors is not of the rate that a corpus comes to.
"""

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench import texts
from bench.daemon import pause, running
from bench.report import Chart, Result, Side, Table, point, spread
from client_lib.ray import SidecarEmbedder
from sidecar.host import read_host
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name

_ACTORS = (1, 2)
_STORE_BYTES = 256 * 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    texts.add_arguments(parser, 1024)


class Timed(SidecarEmbedder):
    """Says of each row when its batch began and ended, on the host's clock."""

    def __call__(self, batch: Any) -> Any:
        begun = time.monotonic()
        embedded = super().__call__(batch)
        spans = {"begun": begun, "ended": time.monotonic()}
        return embedded | {name: np.full(len(batch["text"]), at) for name, at in spans.items()}


def measure(arguments: argparse.Namespace) -> Result:
    corpus = texts.read(arguments.data, arguments.texts)
    rates: dict[int, list[float]] = {actors: [] for actors in _ACTORS}
    with running("--embedding-model", arguments.model) as socket, _ray() as ray:
        for _ in range(arguments.rounds):
            for actors, values in rates.items():
                pause()
                values.append(_rate(ray, corpus, str(socket), actors, arguments.batch_size))
    return _result(rates, display_name(arguments.model), len(corpus))


@contextmanager
def _ray() -> Iterator[Any]:
    """Start a cluster of this node alone, and yield Ray."""
    try:
        import ray  # noqa: PLC0415 - an extra, which no other command needs
    except ImportError:
        raise SystemExit("this takes Ray: install Sidecar with its extra `ray`") from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.init(
        address="local", num_cpus=max(_ACTORS) + 1, object_store_memory=_STORE_BYTES,
        include_dashboard=False, log_to_driver=False, logging_level="warning",
    )  # fmt: skip
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    finally:
        ray.shutdown()


def _rate(ray: Any, corpus: Sequence[str], socket: str, actors: int, batch_size: int) -> float:
    """Return texts a second."""
    spans = (
        ray.data.from_items([{"text": text} for text in corpus])
        .repartition(-(-len(corpus) // batch_size))  # a block a batch, for every actor to have some
        .map_batches(
            Timed, fn_constructor_kwargs={"socket": socket}, batch_size=batch_size,
            compute=ray.data.ActorPoolStrategy(size=actors), num_cpus=1,
        )
        .select_columns(["begun", "ended"])
        .to_pandas()
    )  # fmt: skip
    return len(spans) / float(spans["ended"].max() - spans["begun"].min())


def _result(rates: dict[int, list[float]], model: str, count: int) -> Result:
    title = f"{model} in int8, {count} texts by Ray Data's actors on one node"
    sides = {actors: Side(_name(actors), "texts/s", values) for actors, values in rates.items()}
    fewest, most = (sides[actors].median for actors in (min(sides), max(sides)))
    return Result(
        title=title,
        sides=list(sides.values()),
        figures={
            "texts/s of 2 actors, to those of 1": most / fewest,
            "texts/s a core, the better of both": max(fewest, most) / read_host().cores,
        },
        tables=[
            Table(title, ("", "texts/s"), [(side.name, spread(side)) for side in sides.values()])
        ],
        charts=[
            Chart(
                name="actors",
                title=title,
                about="Texts a second by the number of actors.",
                x="",
                y="texts/s",
                series={"Sidecar INT8": [point(side.name, side) for side in sides.values()]},
            )
        ],
    )


def _name(actors: int) -> str:
    return "1 actor" if actors == 1 else f"{actors} actors"
