"""The job that embeds a corpus into an output file: survey, embed, finish.

A run resumes at the step where an interrupted one stopped, if everything that determines the
vectors is unchanged.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from client_lib import AsyncClient, Client
from client_lib.own_folder import shown
from sidecar.bulk.corpus import PARQUET, Corpus
from sidecar.bulk.errors import InputError, OutputError, StateError
from sidecar.bulk.part import Note, Part
from sidecar.bulk.stream import Show, Stream

_ANSWER_SECONDS = 10.0
# A request may have to wait for all interactive work, or for a daemon to be replaced.
_REQUEST_SECONDS = 600.0
# The status fields that determine a model's vectors to the byte; a daemon may omit some.
_DECISIVE = (
    "name", "dimensions", "device", "quantization", "weight_bits", "kernel", "source_sha256",
    "prompts", "default_prompt_name",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A corpus to embed and where to write it.

    `options` are sent with each request: `prompt_name`, `role`, `dimensions`, `normalize`.
    `overwrite` replaces an existing output, and a partial result from other inputs.
    """

    corpus: Corpus
    output: Path
    options: Mapping[str, Any]
    socket: Path | None = None
    overwrite: bool = False

    def run(self, show: Show) -> Note:
        """Run or resume the job, and return its final note.

        Raises `BulkError`, or `SidecarError` if the daemon refuses a request or stays unavailable.
        """
        if os.path.lexists(self.output) and not self.overwrite:
            raise StateError(f"{shown(self.output)} already exists: use --overwrite to replace it")
        if self.output.is_dir() and not self.output.is_symlink():
            raise OutputError(f"{shown(self.output)} is a directory: name a file")
        identity = self._identity()
        with Part.hold(self.output) as part:
            note = self._resumed(part, identity) or self._survey(identity)
            if note.rows < note.total:
                note = asyncio.run(self._embed(part, note, show))
            self._finish(part, note, show)
        return note

    def _identity(self) -> dict[str, Any]:
        return {
            "inputs": self.corpus.identity(),
            "field": self.corpus.field,
            "options": dict(self.options),
            "model": self._model(),
        }

    def _model(self) -> dict[str, Any]:
        with Client(self.socket, timeout=_ANSWER_SECONDS, retries=False) as client:
            models = client.status().get("models", ())
        embedder = next(model for model in models if model["task"] == "embed")
        return {key: embedder[key] for key in _DECISIVE if key in embedder}

    def _resumed(self, part: Part, identity: Mapping[str, Any]) -> Note | None:
        note = part.note()
        if note is None or note.identity == identity:
            return note
        if self.overwrite:
            part.clear()
            return None
        other = ", ".join(key for key in identity if note.identity.get(key) != identity[key])
        raise StateError(
            f"{part.folder} holds {note.rows} of {note.total} vectors, started with different "
            f"{other}: repeat the original command, or start over with --overwrite"
        )

    def _survey(self, identity: dict[str, Any]) -> Note:
        """Read everything once, so that invalid input is reported before the work, not after."""
        total = sum(1 for _ in self.corpus.rows())
        if total == 0:
            raise InputError(f"no texts in {', '.join(map(str, self.corpus.paths))}")
        if self.output.suffix == PARQUET:
            import_module("sidecar.bulk.tables").schema_of(self.corpus)
        return Note(identity, total)

    async def _embed(self, part: Part, note: Note, show: Show) -> Note:
        stream = Stream(part, note, show)
        async with AsyncClient(self.socket, timeout=_REQUEST_SECONDS) as client:
            await stream.run(client, islice(self.corpus.rows(), note.rows, None), self.options)
        return stream.note

    def _finish(self, part: Part, note: Note, show: Show) -> None:
        if self.output.suffix == PARQUET:

            def written(rows: int) -> None:
                show("writing", rows, note.total)

            tables = import_module("sidecar.bulk.tables")
            with part.table() as file:
                tables.write(self.corpus, part.vectors(), file, written)
        part.finish()
