"""The results of a demo run, and their rendering."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client_lib import RerankReply
from sidecar.cli.demo_crowd import Answer

_HITS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results. Times are in seconds, vectors are float32 [n, d]."""

    texts: list[str]
    queries: tuple[str, ...]
    answers: list[Answer]
    lone_seconds: list[float]
    same_bytes: bool
    query_vectors: NDArray[np.float32]
    vectors: NDArray[np.float32]
    rerank: RerankReply
    status: dict[str, Any]
    events: list[dict[str, Any]]


def render(outcome: Outcome) -> RenderableType:
    """Return the whole report."""
    parts = (
        ("What was quantized, and how close it stayed to FP32", _quantization(outcome)),
        ("The batches formed while all clients asked at once", _batches(outcome)),
        ("Semantic search over the texts", _search(outcome)),
        (f"Rerank by {outcome.rerank.method}: {outcome.queries[0]!r}", _rerank(outcome)),
        ("Time and memory", _figures(outcome)),
    )
    return Group(*(piece for title, body in parts for piece in _section(title, body)))


def _section(title: str, body: RenderableType) -> Iterator[RenderableType]:
    yield Text(f"\n{title}", style="bold cyan")
    yield body


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != "text")
    return table


def _pairs() -> Table:
    return Table.grid(padding=(0, 3, 0, 0))


def _events(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    return [event for event in outcome.events if event["event"] == name]


def _quantization(outcome: Outcome) -> RenderableType:
    table = _pairs()
    for event in _events(outcome, "quantization.applied"):
        before, after = event["bytes_before"] / 1e6, event["bytes_after"] / 1e6
        table.add_row(Text(event["model"], style="bold"), event["message"])
        table.add_row("  weights", f"{before:.1f} → {after:.1f} MB ({after / before:.0%})")
        table.add_row("  closeness", _closeness(event))
        table.add_row("  took", f"{event['seconds']:.1f} s")
    return table


def _closeness(event: dict[str, Any]) -> str:
    if "cosine_mean" in event:
        mean, worst = event["cosine_mean"], event["cosine_min"]
        return f"measured cosine to FP32: mean {mean:.4f}, worst {worst:.4f}"
    agreement = event["rank_agreement"]
    return f"measured order of document pairs: {agreement:.1%} as in FP32"


def _batches(outcome: Outcome) -> RenderableType:
    table = _table("rows", "", "tokens", "queued", "computed in")
    for batch in _of_the_crowd(outcome):
        table.add_row(
            str(batch["rows"]),
            "█" * batch["rows"],
            str(batch["tokens"]),
            f"{batch['queue_ms']:.1f} ms",
            f"{batch['compute_ms']:.1f} ms",
        )
    note = "without padding: every token belongs to a text"
    return Group(table, Text(note, style="dim"))


def _of_the_crowd(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield the first batches, up to the number of rows that the crowd sent."""
    rows = 0
    for batch in _events(outcome, "batch.completed"):
        if rows < len(outcome.texts):
            rows += batch["rows"]
            yield batch


def _search(outcome: Outcome) -> RenderableType:
    table = _table("score", "text")
    scores = outcome.query_vectors @ outcome.vectors.T
    for query, row in zip(outcome.queries, scores, strict=True):
        table.add_row("", Text(query, style="bold"))
        for index in np.argsort(-row)[:_HITS]:
            table.add_row(f"{row[index]:.3f}", outcome.texts[index])
    return table


def _rerank(outcome: Outcome) -> RenderableType:
    table = _table("relevance", "text")
    for hit in outcome.rerank.results:
        table.add_row(f"{hit.relevance_score:.3f}", outcome.texts[hit.index])
    return table


def _figures(outcome: Outcome) -> RenderableType:
    crowd = sorted(answer.seconds * 1e3 for answer in outcome.answers)
    lone = outcome.lone_seconds
    table = _pairs()
    table.add_row("single requests", f"{median(lone) * 1e3:.2f} ms (median of {len(lone)})")
    table.add_row(
        f"{len(crowd)} concurrent requests",
        f"{median(crowd):.1f} ms median, {crowd[-1]:.1f} ms slowest",
    )
    same = "identical, byte for byte" if outcome.same_bytes else "DIFFERENT"
    table.add_row("same text alone and in a batch", same)
    memory = outcome.status["memory"]
    table.add_row("the daemon's memory", f"{memory['pss_bytes'] / 1e6:.0f} MB (PSS)")
    return table
