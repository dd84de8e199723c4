"""An artifact as the engine lays it out for this processor, and what a text alone gains by it.

The engine multiplies weights in an order of its own, which depends on the processor. In a file
of the cache that order is found once, and whoever serves the artifact maps the same file: the
old and the new models of a reload, daemons beside each other, and the two sessions of one model.
So a second session, whose threads share one row, takes no more memory than its activations.
"""

import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import structlog

from sidecar.encoder import runtime
from sidecar.encoder.runtime import Session
from sidecar.host import read_host
from sidecar.memory import let_go
from sidecar.models import manifest as manifests
from sidecar.models.compute import is_as_stored, session_of
from sidecar.models.digests import Digests
from sidecar.models.drafts import draft_of, sweep
from sidecar.models.manifest import GRAPH, TOKENIZER, WEIGHTS, Speed
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row
from sidecar.models.speed import measure_speed
from sidecar.models.tokenizer import Tokenizer

log = structlog.get_logger()

_NOTE = "layout.json"
_FORMAT = 1
# A query, and a paragraph: the lengths at which more threads are tried.
_TOKENS = (12, 96)
# What a row alone must gain for the other cores to be taken for it.
_LEAST_GAIN = 1.15
_ONE = "1 thread"
# A layout of another processor, release or number of threads may come into use again.
_KEPT_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Layout:
    """The `graph` to open, and how many `threads` compute a row that is alone.

    `speed` is what was measured on this host, by the number of threads in words.
    """

    graph: Path
    threads: int = 1
    speed: Mapping[str, Speed] = field(default_factory=dict)


def layout_of(artifact: Path, cache: Path, threads: int) -> Layout:
    """Return the layout of `artifact` for a row alone on up to `threads` threads.

    It is made in `cache` where it is not there whole, in a second or so. Where that fails the
    artifact's own graph serves, and one thread a row.
    """
    try:
        folder = cache / f"{artifact.name}-layout-{_key(artifact, cache, threads)}"
        if (layout := _read(folder, artifact)) is None:
            _make(artifact, folder, threads)
            _sweep(cache, artifact, folder)
            layout = _read(folder, artifact)
    # onnxruntime's errors have no class in common but this one.
    except Exception as error:  # noqa: BLE001 - whatever it is, the model can be served without
        log.warning("model.layout_failed", model=artifact.name, reason=" ".join(str(error).split()))
        return Layout(artifact / GRAPH)
    return layout or Layout(artifact / GRAPH)


def _key(artifact: Path, cache: Path, threads: int) -> str:
    """Return what changes with everything that the layout and its speed depend on."""
    host, digests = read_host(), Digests(cache)
    facts = (
        (artifact / manifests.FILE).read_text("utf-8"),
        *(digests.of(artifact / name) for name in (GRAPH, WEIGHTS)),
        f"{host.cpu_model} {sorted(host.isa)}",
        f"{_FORMAT} {runtime.version()} {threads}",
    )
    digests.remember()
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _make(artifact: Path, folder: Path, threads: int) -> None:
    """Write the layout; it appears whole or not at all."""
    draft = draft_of(folder)
    sweep(folder)
    try:
        draft.mkdir(parents=True)
        own = not is_as_stored(manifests.read(artifact).quantization)
        if own:
            runtime.lay_out(artifact / GRAPH, draft / GRAPH)
        note = {
            "own": own,
            "bytes": _bytes_in(draft),
            **_measure(artifact, (draft if own else artifact) / GRAPH, threads),
        }
        (draft / _NOTE).write_text(json.dumps(note, indent=2), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            draft.rename(folder)
        except OSError:
            if not (folder / _NOTE).is_file():  # another daemon has not made it meanwhile
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        let_go()


def _sweep(cache: Path, artifact: Path, own: Path) -> None:
    """Remove the artifact's layouts that nobody has opened for long, but its `own`.

    Whoever has one mapped keeps it until it lets go.
    """
    for note in cache.glob(f"{glob.escape(artifact.name)}-layout-*/{_NOTE}"):
        with suppress(OSError):  # another daemon sweeps as well
            if note.parent != own and time.time() - note.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(note.parent, ignore_errors=True)


def _measure(artifact: Path, graph: Path, threads: int) -> dict[str, object]:
    """Return whether more threads compute a row sooner, to the same bytes."""
    manifest = manifests.read(artifact)
    many = f"{threads} threads"
    plain = session_of(artifact / GRAPH, manifest.quantization)
    sessions = {_ONE: session_of(graph, manifest.quantization)}
    if threads > 1:
        sessions[many] = session_of(graph, manifest.quantization, threads)
    rows = _rows(artifact)
    for session in sessions.values():
        if not all(_same(session, plain, row) for row in rows):
            raise ValueError("the engine's layout computes other bytes than the artifact")
    # The best of each: threads that share a row suffer more than one thread does from whatever
    # else the host does just now, which may not be what it does for the rest of the time.
    speed = measure_speed(sessions, rows, min)
    wide = threads > 1 and _gains(speed[_ONE], speed[many])
    return {
        "threads": threads if wide else 1,
        "speed": {name: asdict(each) for name, each in speed.items()},
    }


def _gains(one: Speed, many: Speed) -> bool:
    return one.short_ms >= _LEAST_GAIN * many.short_ms and one.long_ms >= _LEAST_GAIN * many.long_ms


def _same(session: Session, plain: Session, row: Row) -> bool:
    inputs = row.ids[np.newaxis], row.token_types[np.newaxis]
    return session.run(*inputs).tobytes() == plain.run(*inputs).tobytes()


def _rows(artifact: Path) -> Sequence[Row]:
    """Return a probe of about each of the lengths."""
    description = manifests.read(artifact).description
    tokenizer = Tokenizer(artifact / TOKENIZER, description.max_tokens)
    rows = tokenizer.rows(probe_inputs(description.task))
    return [_nearest(rows, tokens) for tokens in _TOKENS]


def _nearest(rows: Sequence[Row], tokens: int) -> Row:
    return min(rows, key=lambda row: abs(row.tokens - tokens))


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != _NOTE)


def _read(folder: Path, artifact: Path) -> Layout | None:
    """Return the layout in `folder`, or None where there is none, or not all of it."""
    if not (folder / _NOTE).is_file():
        return None
    note = json.loads((folder / _NOTE).read_text("utf-8"))
    if note["bytes"] != _bytes_in(folder):
        return None
    with suppress(OSError):  # a cache of somebody else serves as well
        os.utime(folder / _NOTE)
    speed = {name: Speed(**each) for name, each in note["speed"].items()}
    graph = (folder if note["own"] else artifact) / GRAPH
    return Layout(graph, int(note["threads"]), speed)
