"""What is known of a server of others: how it is installed, started and asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

# Any other of this version's wheels on Linux is a build for CUDA, and takes gigabytes.
TORCH = "torch==2.13.0"
BATCH = 16  # texts, where a server asks how many it shall take at most
PATH = "/v1/embeddings"  # where all of them are asked, in OpenAI's words
INSIDE = Path(__file__).parent / "inside"  # what runs in their environments, not in ours


class CannotServeError(Exception):
    """Why a server does not serve this model; the message is a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all have in common: the model's folder, where it cuts texts, and how many threads.

    `workshop` is a folder to write to.
    """

    folder: Path
    max_tokens: int
    cores: int
    workshop: Path


Command: TypeAlias = Callable[[Path, int, Setting], Sequence[str]]
Inputs: TypeAlias = Callable[[str], Any]


def as_they_are(_: Setting) -> Inputs:
    """Send texts as they are."""
    return lambda text: text


@dataclass(frozen=True, slots=True)
class Service:
    """`command` starts it in the foreground: by a Python, that of its environment, and on a port
    of 127.0.0.1. `inputs` makes what it is sent of a text.
    """

    name: str
    command: Command
    inputs: Callable[[Setting], Inputs] = as_they_are


@dataclass(frozen=True, slots=True)
class Peer:
    """A package with an environment of its own, and what is served with it."""

    name: str
    requirements: Sequence[str]
    services: Sequence[Service]
