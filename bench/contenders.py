"""All ways to have texts embedded that are measured against each other, each ready to be asked."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from bench import dynamic
from bench.callers import Ask, Encode, Visit, crowd, in_batches
from bench.daemon import running
from bench.in_process import by_hand, in_fp32, in_textbook_int8
from bench.in_sidecar import InSidecar
from bench.loads import CLIENTS
from bench.peers.environment import command_for, python_of
from bench.peers.peer import CannotServeError, Setting
from bench.peers.server import Server, serving
from bench.peers.table import PEERS, SERVICES
from client_lib import Client
from sidecar.host import read_host
from sidecar.models.folder.describe import describe
from sidecar.models.source import locate

SIDECAR = "Sidecar"
ENCODER_BATCHES = "Sidecar's encoder in process, batches of 64"
FP32_BATCHES = "sentence-transformers FP32, batches of 16"
FP32_ALONE = "sentence-transformers FP32, one at a time"
TEXTBOOK_BATCHES = "PyTorch dynamic INT8, batches of 16"
TEXTBOOK_ALONE = "PyTorch dynamic INT8, one at a time"
BY_HAND = "onnxruntime dynamic INT8, one at a time"
NAMES = (
    *(SIDECAR, ENCODER_BATCHES, FP32_BATCHES, FP32_ALONE, TEXTBOOK_BATCHES, TEXTBOOK_ALONE),
    *(BY_HAND, *SERVICES),
)
_BATCH, _LARGEST = 16, CLIENTS[-1]
_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Contender:
    """`visit` embeds texts for one of the numbers of clients that are named in `clients`.

    Within a process, a lone caller has texts computed one at a time, and 16 or 64 fill a batch.
    """

    name: str
    clients: Sequence[int]
    visit: Callable[[Sequence[str], int], Visit]


@dataclass(frozen=True, slots=True)
class Lineup:
    """`reference` encodes in FP32; `missing` says why who was wanted is not there."""

    reference: Encode
    contenders: list[Contender] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def chosen(words: Sequence[str]) -> Collection[str]:
    """Return the names that hold any of `words`, or all. A word that none holds is an error."""
    if not words:
        return NAMES
    found = {word: [n for n in NAMES if word.casefold() in n.casefold()] for word in words}
    if unknown := [word for word, names in found.items() if not names]:
        raise SystemExit(f"no side has {', '.join(unknown)} in its name: {'; '.join(NAMES)}")
    return {name for names in found.values() for name in names}


@contextmanager
def gathered(arguments: argparse.Namespace, workshop: Path) -> Iterator[Lineup]:
    """Load and start whoever is wanted, one after the other; all are gone afterwards."""
    wanted, folder, cores = chosen(arguments.sides), locate(arguments.model), read_host().cores
    model, fp32 = in_fp32(folder, cores)
    setting = Setting(
        folder=folder, max_tokens=describe(folder).max_tokens, cores=cores, workshop=workshop
    )
    lineup = Lineup(reference=fp32)
    textbook = cache(partial(in_textbook_int8, model))
    artifact = cache(partial(_prepared, arguments.model, arguments.quantization, workshop))
    in_process: Mapping[str, tuple[int, Callable[[], Encode]]] = {
        ENCODER_BATCHES: (_LARGEST, lambda: InSidecar(artifact(), cores)),
        FP32_BATCHES: (_BATCH, lambda: fp32),
        FP32_ALONE: (1, lambda: fp32),
        TEXTBOOK_BATCHES: (_BATCH, textbook),
        TEXTBOOK_ALONE: (1, textbook),
        BY_HAND: (1, partial(_by_hand, setting)),
    }
    with ExitStack() as stack:
        if SIDECAR in wanted:
            daemon = _sidecar(artifact(), arguments.quantization)
            lineup.contenders.append(stack.enter_context(daemon))
        for name, (size, encoder) in in_process.items():
            if name in wanted:
                visit = partial(in_batches, encoder())
                lineup.contenders.append(Contender(name, (size,), visit))
        _add_servers(lineup, arguments, setting, stack)
        yield lineup


def _prepared(model: str, quantization: str, workshop: Path) -> Path:
    artifact = workshop / "artifact"
    say(f"preparing {model} in {quantization}")
    options = ("--output", str(artifact), "--quantization", quantization)
    command = [sys.executable, "-m", "sidecar", "prepare", model, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return artifact


@contextmanager
def _sidecar(artifact: Path, quantization: str) -> Iterator[Contender]:
    options = ("--embedding-model", str(artifact), "--quantization", quantization)
    with running("--device", "cpu", *options) as socket:
        yield Contender(SIDECAR, CLIENTS, partial(crowd, partial(_client, socket)))


@contextmanager
def _client(socket: Path) -> Iterator[Ask]:
    with Client(socket, timeout=_TIMEOUT) as client:
        client.ping()
        yield lambda text: client.embed([text]).vectors[0]


def _by_hand(setting: Setting) -> Encode:
    _, int8 = dynamic.write(setting.folder, setting.workshop)
    return by_hand(int8, setting.folder, setting.max_tokens, setting.cores)


def _add_servers(
    lineup: Lineup, arguments: argparse.Namespace, setting: Setting, stack: ExitStack
) -> None:
    """Start the servers that are wanted, or note why they are missing."""
    wanted, place = chosen(arguments.sides), arguments.peers
    for peer in PEERS:
        python = python_of(peer, place) if place else None
        for service in peer.services:
            if service.name not in wanted:
                continue
            if python is None:
                command = command_for(peer, place)
                lineup.missing[service.name] = f"`{command}` installs it; then --peers"
                continue
            say(f"starting {service.name}")
            try:
                started = stack.enter_context(serving(service, python, setting))
            except (CannotServeError, RuntimeError) as error:
                lineup.missing[service.name] = str(error)
            else:
                visit = partial(_visit, started)
                lineup.contenders.append(Contender(service.name, CLIENTS, visit))


def _visit(started: Server, texts: Sequence[str], clients: int) -> Visit:
    with started.awake():
        return crowd(started.connect, texts, clients)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
