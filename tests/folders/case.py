"""What a folder of the matrix is: data, and the outcome that it has to have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Edit: TypeAlias = Callable[[Path], None]
"""A change of a folder, such as the folders of the hub have undergone."""

Served: TypeAlias = Literal["graph", "library", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a folder is served: by our graph, by the library's own path, or not at all.

    `reason` of an expectation is a part of the refusal's line. Two more are found, and never
    expected: "DIFFERENT", with the first text that tells, and "crashed", with the exception.
    """

    served: str
    reason: str = ""

    def meets(self, expected: "Outcome") -> bool:
        """Whether this, as it was found, is what was `expected`."""
        return self.served == expected.served and expected.reason in self.reason


GRAPH = Outcome("graph")
LIBRARY = Outcome("library")


def refused(reason: str) -> Outcome:
    """Return the refusal whose line has `reason` in it."""
    return Outcome("refused", reason)


@dataclass(frozen=True, slots=True)
class Module:
    """A module of sentence-transformers: the name of its class, and its config.json."""

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One folder.

    `holds` says in words what is special about it: its row in the table of docs/models.md.
    The folder begins as `family`'s, with that family's `tokenizer` or another's, weights of
    `config`, and for an embedder the pipeline of `modules` behind its transformer (None: no
    modules.json at all); `edits` follow in turn.
    """

    name: str
    holds: str
    family: str
    expected: Outcome
    tokenizer: str = ""
    classifier: bool = False
    modules: tuple[Module, ...] | None = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()

    @property
    def task(self) -> Literal["embed", "rerank"]:
        """What the model is for."""
        return "rerank" if self.classifier else "embed"
