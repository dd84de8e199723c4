"""Output precisions end to end, from a real model in a real daemon to the client's array."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from client_lib import BadRequest, Client, operations
from client_lib.wire.messages import PRECISIONS, Embed, Precision

from .daemon import Daemon

pytestmark = pytest.mark.slow

TEXTS = ["how do I renew a passport", "ok", "copper conducts heat. " * 30, "", "猫が眠る", "ok"]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.socket) as client:
        yield client


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_text_has_the_same_bytes_in_any_batch(
    client: Client, precision: Precision
) -> None:
    """A text has the same bytes in every precision, alone and in any batch."""
    alone = [client.encode(text, precision=precision).tobytes() for text in TEXTS]
    rng = np.random.default_rng(11)
    for size in (1, 7, 300):
        picks = rng.integers(len(TEXTS), size=size)
        vectors = client.encode([TEXTS[i] for i in picks], precision=precision)
        assert [vector.tobytes() for vector in vectors] == [alone[i] for i in picks]


def test_every_precision_is_made_of_the_same_vector(client: Client) -> None:
    """Every precision is derived from the float32 vector, at the dimensions kept."""
    for dimensions in (384, 60):
        vectors = client.encode(TEXTS, dimensions=dimensions)
        levels = np.rint(vectors * np.float32(16 * np.sqrt(dimensions))).clip(-128, 127)
        expected: dict[Precision, Any] = {
            "float16": vectors.astype(np.float16),
            "int8": levels,
            "uint8": levels + 128,
            "binary": np.packbits(vectors > 0, axis=1).astype(int) - 128,
            "ubinary": np.packbits(vectors > 0, axis=1),
        }
        for precision, array in expected.items():
            got = client.encode(TEXTS, dimensions=dimensions, precision=precision)
            assert np.array_equal(got, array), precision


def test_the_daemon_refuses_what_it_does_not_know(client: Client) -> None:
    """An unknown precision is refused with the known ones, and int8 needs unit vectors."""
    wrong = operations.Operation(
        lambda **own: Embed(input=("a",), precision="int4", **own),  # type: ignore[arg-type]
        dict,
    )
    with pytest.raises(BadRequest, match="'precision' must be one of float32, float16, int8"):
        list(client.pipeline([wrong]))
    with pytest.raises(BadRequest, match="set normalize to true"):
        client.encode("a", precision="int8", normalize=False)
