"""Replies are read strictly."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from client_lib import ProtocolError, RerankResult
from client_lib.wire.replies import (
    EmbedReply,
    MetricsReply,
    RerankReply,
    StatusReply,
    view_vectors,
)

from .fake_daemon import TIMINGS, USAGE, embed_body

EMBED = embed_body([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
RERANK = {
    "model": "m", "method": "cross_encoder", "usage": USAGE, "truncated": [1], "timings": TIMINGS,
    "results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": -2}],
}  # fmt: skip


def test_every_number_of_a_reply_is_read_as_itself() -> None:
    """Numbers of a reply are read by name, in any order."""
    shuffled = {
        "usage": dict(reversed(USAGE.items())), "timings": dict(sorted(TIMINGS.items())),
        "truncated": [0, 2],
    }  # fmt: skip
    for reply in (
        EmbedReply.from_map({**EMBED, **shuffled}, 3),
        RerankReply.from_map({**RERANK, **shuffled}, 2),
    ):
        assert asdict(reply.usage) == USAGE
        assert asdict(reply.timings) == TIMINGS
        assert reply.truncated == (0, 2)
    assert (reply.model, reply.method) == ("m", "cross_encoder")
    assert EmbedReply.from_map({**EMBED, "model": "mine"}, 3).model == "mine"


def test_metrics_are_read() -> None:
    """A metrics reply has the text and its content type."""
    reply = MetricsReply.from_map({"content_type": "text/plain", "text": "x 1\n"})
    assert (reply.content_type, reply.text) == ("text/plain", "x 1\n")


def test_vectors_are_read_in_one_piece() -> None:
    """Vectors are read as float32 [n, d]: a read-only view, or a writable copy in a reply."""
    view, reply = view_vectors(EMBED, 3), EmbedReply.from_map(EMBED, 3)
    assert np.array_equal(view, [[1, 2], [3, 4], [5, 6]])
    assert view.dtype == reply.vectors.dtype == np.float32
    assert not view.flags.writeable
    assert reply.vectors.flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16"},
        {"dtype": None},
        {"shape": [3]},
        {"shape": [2, 3]},
        {"shape": [3, 3]},
        {"shape": [3, -2]},
        {"shape": [3, "2"]},
        {"shape": 3},
        {"data": b""},
        {"data": EMBED["vectors"]["data"] + b"\0"},
        {"data": None},
        {"data": "x" * 24},
    ],
)
def test_vectors_that_do_not_add_up_are_refused(change: dict[str, Any]) -> None:
    """Vectors whose dtype, shape, bytes or number disagree raise `ProtocolError`."""
    with pytest.raises(ProtocolError):
        EmbedReply.from_map({**EMBED, "vectors": {**EMBED["vectors"], **change}}, 3)


@pytest.mark.parametrize("precision", ["float16", "int8", "uint8", "binary", "ubinary"])
def test_a_daemon_that_knows_no_precision_is_found_out(precision: Any) -> None:
    """float32 vectors from a daemon that does not know the precision raise `ProtocolError`."""
    with pytest.raises(ProtocolError, match=f"float32 vectors for precision {precision}"):
        EmbedReply.from_map(EMBED, 3, precision)


def test_numbers_of_the_wrong_width_are_refused() -> None:
    """Bytes that do not match the shape are refused in every precision."""
    body = embed_body([[1.0, 2.0]], precision="float16")
    assert np.array_equal(EmbedReply.from_map(body, 1, "float16").vectors, [[1, 2]])
    body["vectors"]["data"] += b"\0\0"
    with pytest.raises(ProtocolError, match="6 bytes for float16"):
        EmbedReply.from_map(body, 1, "float16")


@pytest.mark.parametrize("field", ["model", "vectors", "usage", "truncated", "timings"])
def test_every_field_of_embed_has_to_be_there(field: str) -> None:
    """A missing or invalid field of an embed reply raises a `ProtocolError` naming the op."""
    without = {key: value for key, value in EMBED.items() if key != field}
    for body in (without, {**EMBED, field: 1.5}):
        with pytest.raises(ProtocolError, match="embed"):
            EmbedReply.from_map(body, 3)


def test_a_ranking_is_read() -> None:
    """Rerank results keep the daemon's order, and scores may be any number."""
    reply = RerankReply.from_map(RERANK, 2)
    assert reply.results == (RerankResult(1, 0.5), RerankResult(0, -2))
    assert reply.truncated == (1,)


@pytest.mark.parametrize("index", [2, -1, None, 0.5])
def test_a_ranking_of_what_was_not_sent_is_refused(index: Any) -> None:
    """An index out of the range of documents raises `ProtocolError`."""
    with pytest.raises(ProtocolError):
        RerankReply.from_map({**RERANK, "results": [{"index": index, "relevance_score": 1.0}]}, 2)


@pytest.mark.parametrize("field", ["model", "method", "results", "usage", "truncated", "timings"])
def test_every_field_of_rerank_has_to_be_there(field: str) -> None:
    """A missing or invalid field of a rerank reply raises a `ProtocolError` naming the op."""
    without = {key: value for key, value in RERANK.items() if key != field}
    for body in (without, {**RERANK, field: 1.5}):
        with pytest.raises(ProtocolError, match="rerank"):
            RerankReply.from_map(body, 2)


def test_timings_from_the_future_are_ignored() -> None:
    """Unknown fields, as of a newer daemon, are ignored."""
    body = {**EMBED, "timings": {**TIMINGS, "moon_ms": 1}, "colour": "blue"}
    assert EmbedReply.from_map(body, 3).timings.batch_tokens == 7


@pytest.mark.parametrize("body", [{}, {"status": None}, {"status": 3}])
def test_a_status_is_a_map(body: dict[str, Any]) -> None:
    """A status that is not a map raises `ProtocolError`."""
    with pytest.raises(ProtocolError, match="status"):
        StatusReply.from_map(body)
