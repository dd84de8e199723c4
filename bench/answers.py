"""Write what sentence-transformers says about the default model into the package.

A host without the library proves the default model by that file.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from sidecar.models.digests import Digests, fingerprint
from sidecar.models.oracle.answers import ANSWERS
from sidecar.models.oracle.ask import PACKAGED
from sidecar.models.oracle.library import ask
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate
from sidecar.models.torch_pipeline import Source

_PACKAGE = Path("sidecar/models/oracle")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=_PACKAGE / PACKAGED)


def run(arguments: argparse.Namespace) -> int:
    folder = locate(DEFAULT_EMBEDDING_MODEL)
    with tempfile.TemporaryDirectory() as scratch:
        source = Source(folder, DEFAULT_EMBEDDING_MODEL, "embed")
        ask(source, Path(scratch), about=fingerprint(folder, Digests()))
        shutil.copyfile(Path(scratch) / ANSWERS, arguments.output)
    print(arguments.output)
    return 0
