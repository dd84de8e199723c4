"""The description of a folder in the test matrix and its expected outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Edit: TypeAlias = Callable[[Path], None]
"""A modification of a folder, as seen in folders on the hub."""

Served: TypeAlias = Literal["graph", "library", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a folder is served: by our graph, by the library, or not at all.

    In an expectation, `reason` is part of the error message. Two more outcomes can be found, but
    never expected: "DIFFERENT", with the first differing text, and "crashed", with the exception.
    """

    served: str
    reason: str = ""

    def meets(self, expected: "Outcome") -> bool:
        """Whether this outcome, as found, is the `expected` one."""
        return self.served == expected.served and expected.reason in self.reason


GRAPH = Outcome("graph")
LIBRARY = Outcome("library")


def refused(reason: str) -> Outcome:
    """Return a refusal whose message contains `reason`."""
    return Outcome("refused", reason)


@dataclass(frozen=True, slots=True)
class Module:
    """A sentence-transformers module: its class name and config.json."""

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A folder of the matrix.

    `holds` describes what is special about it, for the table in docs/models.md. The folder is
    created for `family` with its own or another `tokenizer`, weights according to `config`, and for
    an embedder the pipeline of `modules` after its transformer (None: no modules.json); then
    `edits` are applied in order.
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
        """The model's task."""
        return "rerank" if self.classifier else "embed"
