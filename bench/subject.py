"""What a load is made of: a prepared model, texts of random lengths, each one's vector alone."""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import tiny
from sidecar.host import read_host
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.probes import probe_inputs
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate
from sidecar.plan import weight_bits
from sidecar.serving.postprocess import Postprocess


@dataclass(frozen=True, slots=True)
class Subject:
    """`vectors[i]` are the bytes of `texts[i]`'s vector, computed by itself in this process."""

    name: str
    artifact: Path
    texts: Sequence[str]
    vectors: Sequence[bytes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--tiny", action="store_true", help="a model of hardly any compute")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--seed", type=int, default=4)


def make(arguments: argparse.Namespace, workshop: Path) -> Subject:
    """Prepare the model in `workshop` and compute the vector of every text."""
    folder = tiny.write(workshop / "tiny") if arguments.tiny else locate(arguments.model)
    artifact = workshop / "artifact"
    # How close it is to FP32 is not asked here.
    precision = Precision("int8", weight_bits(read_host()), floor=-1)
    prepare(PrepareRequest(folder=folder, name="model", precision=precision, output=artifact))
    model = load(artifact)
    texts = _texts(random.Random(arguments.seed), arguments.texts, model.max_tokens)
    finish = Postprocess(model.dimensions, model.normalize)
    rows = (model.tokenize([text])[0] for text in texts)
    vectors = [finish(model.forward(row)).tobytes() for row in rows]
    name = "tiny" if arguments.tiny else arguments.model
    return Subject(name, artifact, texts, vectors)


def _texts(chance: random.Random, count: int, max_tokens: int) -> list[str]:
    # A word is a token or more: every length from 1 to the model's longest is there.
    words = " ".join(str(text) for text in probe_inputs("embed")).split()
    lengths = [chance.randint(1, max_tokens) for _ in range(count)]
    # The number keeps apart what would be equal; whose vector a reply holds is to be told.
    return [f"{i} {' '.join(chance.choices(words, k=length))}" for i, length in enumerate(lengths)]
