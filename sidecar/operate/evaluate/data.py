"""Evaluation data of three kinds; each yields inputs for the model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from client_lib.texts import half_character
from sidecar.lines import numbered_lines, without_end
from sidecar.models.description import Task
from sidecar.models.rows import Text


class DataError(ValueError):
    """A folder has an unknown shape, or one of its files is wrong; one line says where."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts a model wants before a query, before a document, and before other texts."""

    query: str = ""
    document: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Queries, the documents of a corpus, and which of those are relevant: `qrels`.

    The documents stay in their file, which is read again on every pass.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    corpus: Path
    documents: Mapping[str, None]
    """The documents' ids, in file order."""
    task: ClassVar[Task] = "embed"

    def __len__(self) -> int:
        return len(self.queries) + len(self.documents)

    @property
    def about(self) -> str:
        """The size of the data, in words."""
        return f"{len(self.queries):,} queries, {len(self.documents):,} documents"

    def inputs(self, prompts: Prompts) -> Iterator[Text]:
        """Yield the queries, then the documents."""
        for query in self.queries.values():
            yield prompts.query + query
        for number, entry in json_lines(self.corpus):
            where = f"{self.corpus}:{number}"
            if string(entry, "_id", where) in self.documents:
                yield prompts.document + _document(entry, where)


@dataclass(frozen=True, slots=True)
class Candidates:
    """A query's documents to be ranked, and which are relevant: `labels`, by id."""

    query: str
    documents: tuple[str, ...]
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reranking:
    """Queries by id, each with its candidates."""

    name: str
    queries: Mapping[str, Candidates]
    task: ClassVar[Task] = "rerank"

    def __len__(self) -> int:
        return sum(len(each.documents) for each in self.queries.values())

    @property
    def about(self) -> str:
        """The size of the data, in words."""
        return f"{len(self.queries):,} queries, {len(self):,} candidates"

    def inputs(self, prompts: Prompts) -> Iterator[Text]:  # noqa: ARG002 - pairs take none
        """Yield every query with each of its candidates."""
        for each in self.queries.values():
            for document in each.documents:
                yield each.query, document


@dataclass(frozen=True, slots=True)
class Similarity:
    """Pairs of sentences, and how similar people found them: `scores`."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    scores: tuple[float, ...]
    task: ClassVar[Task] = "embed"

    def __len__(self) -> int:
        return 2 * len(self.pairs)

    @property
    def about(self) -> str:
        """The size of the data, in words."""
        return f"{len(self.pairs):,} pairs of sentences"

    def inputs(self, prompts: Prompts) -> Iterator[Text]:
        """Yield all first sentences, then all second ones."""
        for side in (0, 1):
            for pair in self.pairs:
                yield prompts.text + pair[side]


Data: TypeAlias = Retrieval | Reranking | Similarity
_KINDS: dict[Task, str] = {"embed": "texts to embed", "rerank": "candidates for a cross-encoder"}


def check_task(data: Data, task: Task, model: str) -> None:
    """Raise `DataError` if `data` do not suit a model of `task`, called `model`."""
    if data.task != task:
        raise DataError(f"{data.name} holds {_KINDS[data.task]}, but {model} is a model to {task}")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON lines file, with line numbers. Raises `DataError`."""
    for number, line in lines(path):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is not JSON: {error}") from None
        if not isinstance(entry, dict):
            raise DataError(f"{path}:{number} is not a JSON object")
        yield number, entry


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers. Raises `DataError`."""
    for number, line in numbered_lines(path, DataError):
        if line.strip():
            yield number, without_end(line)


def string(entry: Mapping[str, Any], name: str, where: str) -> str:
    """Return the string field `name`. Raises `DataError`, which names `where` it is missing."""
    if not isinstance(value := entry.get(name), str):
        raise DataError(f'{where} has no string "{name}"')
    if half_character(value) is not None:
        raise DataError(f'{where} holds half a character (a lone surrogate) in "{name}"')
    return value


def _document(entry: Mapping[str, Any], where: str) -> str:
    """Return the title and the text as one, as BEIR's own models take them."""
    title = string(entry, "title", where) if entry.get("title") else ""
    return f"{title} {string(entry, 'text', where)}".strip()
