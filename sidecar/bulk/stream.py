"""Embeds rows with a few requests in flight, keeping only their rows in memory."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from time import monotonic
from typing import Any, TypeAlias

from client_lib import AsyncClient, BadRequest, EmbedReply, TooLarge, UnknownModel
from client_lib.encoding import WINDOW, chunks
from sidecar.bulk.corpus import Row
from sidecar.bulk.errors import InputError
from sidecar.bulk.part import Note, Part

Show: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage, the number of texts that have passed it, and the total."""

_READ_ROWS = 256  # at a time: the maximum per request
_KEEP_SECONDS = 1.0  # the minimum time between notes


class Stream:
    """Writes the daemon's replies to `part` in order; `note` is the progress."""

    def __init__(self, part: Part, note: Note, show: Show) -> None:
        self.note = note
        self._part = part
        self._show = show
        self._model = note.identity["model"]["name"]
        self._begun = self._kept = monotonic()
        self._seconds_before = note.seconds

    async def run(
        self, client: AsyncClient, rows: Iterator[Row], options: Mapping[str, Any]
    ) -> None:
        """Embed `rows`, which follow those in the note. The note is saved however this ends."""
        in_flight: deque[asyncio.Task[EmbedReply]] = deque()
        try:
            for request in _requests(rows):
                if len(in_flight) == WINDOW:
                    self._take(await in_flight[0])
                    in_flight.popleft()
                in_flight.append(asyncio.create_task(_ask(client, request, options)))
            while in_flight:
                self._take(await in_flight[0])
                in_flight.popleft()
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)
            if self.note.rows:
                self._keep()

    def _take(self, reply: EmbedReply) -> None:
        if reply.model != self._model:  # a daemon that has replaced the first may serve another
            raise UnknownModel(
                f"model changed from {self._model!r} to {reply.model!r} during the run"
            )
        if is_first := self.note.rows == 0:
            self._part.begin(self.note.total, reply.vectors.shape[1])
        self._part.put(self.note.rows, reply.vectors)
        count, tokens = len(reply.vectors), reply.usage.total_tokens
        self.note = self.note.after(count, tokens, len(reply.truncated))
        self._show("embedding", self.note.rows, self.note.total)
        if is_first or monotonic() - self._kept >= _KEEP_SECONDS:
            self._keep()

    def _keep(self) -> None:
        self._kept = monotonic()
        seconds = self._seconds_before + self._kept - self._begun
        self.note = replace(self.note, seconds=seconds)
        self._part.keep(self.note)


def _requests(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while block := list(islice(rows, _READ_ROWS)):
        for piece in chunks(tuple(row.text for row in block)):
            yield block[piece]


async def _ask(client: AsyncClient, rows: list[Row], options: Mapping[str, Any]) -> EmbedReply:
    try:
        return await client.embed([row.text for row in rows], priority="bulk", **options)
    except (BadRequest, TooLarge) as error:
        if error.index is not None and error.index < len(rows):
            raise InputError(f"{rows[error.index].place}: {error.message}") from error
        if isinstance(error, TooLarge):
            where = f"{rows[0].place} to {rows[-1].place}"
            raise InputError(f"{where}: {error.message}") from error
        raise
