"""By how much a process grows with a model's weights: `python -m bench.growth TINY ARTIFACT`.

It is the growth of PSS by loading a session and running a few short texts. What the engine
itself takes is there before, for the tiny model has been run; so are the tokenizers.
"""

import ctypes
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import memory
from sidecar.encoder.runtime import Session
from sidecar.models import manifest as manifests
from sidecar.models.compute import forward, session_of
from sidecar.models.manifest import GRAPH, TOKENIZER
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row
from sidecar.models.tokenizer import Tokenizer

_TEXTS = 8


def main(tiny: Path, artifact: Path) -> None:
    rows, tiny_rows = _rows(artifact), _rows(tiny)
    sessions = [_used(tiny, tiny_rows)]
    # What has been freed is not there for the weights to move into, uncounted.
    ctypes.CDLL(None).malloc_trim(0)
    before = memory.held("self")["Pss"]
    sessions.append(_used(artifact, rows))
    grown = memory.held("self")["Pss"] - before
    print(json.dumps({"grown": grown, "untouched": memory.untouched("self", artifact)}))


def _rows(artifact: Path) -> list[Row]:
    description = manifests.read(artifact).description
    texts = probe_inputs(description.task)[:_TEXTS]
    return Tokenizer(artifact / TOKENIZER, description.max_tokens).rows(texts)


def _used(artifact: Path, rows: Sequence[Row]) -> Session:
    session = session_of(artifact / GRAPH, manifests.read(artifact).quantization)
    for row in rows:
        forward(session, "identity", row)
    return session


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
