"""`sidecar embed`: embed files of texts into one file of vectors, through a running daemon."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from client_lib import ConnectionLost, SidecarError
from client_lib.distribution import DAEMON, install_command
from client_lib.wire.roles import ROLES
from sidecar.bulk.corpus import PARQUET, Corpus
from sidecar.bulk.errors import BulkError, InputError, OutputError
from sidecar.bulk.job import Job
from sidecar.bulk.part import Note, begun, folder_of
from sidecar.cli.console import Console
from sidecar.cli.exits import (
    EX_CANTCREAT,
    EX_CONFIG,
    EX_INTERRUPTED,
    EX_NOINPUT,
    EX_OK,
    EX_UNAVAILABLE,
)
from sidecar.cli.screen import add_socket
from sidecar.cli.terminal import complain, say

_OUTPUTS = (".npy", PARQUET)


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "embed",
        help="embed files of texts into one file",
        description="Embed every text of the files through a running daemon, at a lower priority "
        "than interactive requests. After Ctrl-C, a kill or a crash, run the same command to "
        "resume; the output is the same, byte for byte.",
    )
    parser.add_argument(
        "inputs", type=Path, nargs="+", metavar="FILE",
        help=".txt (one text per line), .jsonl, .csv or .parquet",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=_output, required=True, metavar="OUT",
        help=".npy: float32 [n, d]; .parquet: the input columns and `embedding`",
    )  # fmt: skip
    parser.add_argument(
        "--field", default="text", metavar="NAME",
        help="field or column that holds the text (default: text)",
    )  # fmt: skip
    parser.add_argument("--prompt-name", metavar="NAME", help="one of the model's prompts")
    parser.add_argument(
        "--role", choices=ROLES, help="role of the texts; adds the model's prompt for it"
    )
    parser.add_argument(
        "--dimensions", type=_whole, metavar="N", help="keep the first N dimensions"
    )
    parser.add_argument(
        "--no-normalize", dest="normalize", action="store_false", default=None,
        help="do not normalize vectors to unit length",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace OUT, and any partial work from other files or options",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    add_socket(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Embed the files and return the exit code.

    66 for a file or line that cannot be read, 69 if the daemon does not answer, 73 if the output
    cannot be written, 78 for any other error that the user can fix, 130 after Ctrl-C.
    """
    job = _job(arguments)
    if missing := _missing(job):
        complain(missing)
        return EX_CONFIG
    try:
        with _bars() as show:
            note = job.run(show)
    except (BulkError, SidecarError, KeyboardInterrupt) as error:
        complain(str(error) or "interrupted")
        _explain_resume(job)
        return _exit_code(error)
    say(_as_json(note, job.output) if arguments.json else _summary(note, job.output))
    return EX_OK


def _job(arguments: argparse.Namespace) -> Job:
    return Job(
        corpus=Corpus(tuple(arguments.inputs), arguments.field),
        output=arguments.output,
        options={
            "prompt_name": arguments.prompt_name,
            "role": arguments.role,
            "dimensions": arguments.dimensions,
            "normalize": arguments.normalize,
        },
        socket=arguments.socket,
        overwrite=arguments.overwrite,
    )


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _OUTPUTS:
        raise argparse.ArgumentTypeError(f"{text!r} must end in .npy or .parquet")
    return path


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number of at least 1")
    return int(text)


def _missing(job: Job) -> str | None:
    """Return what has to be installed for Parquet, if anything."""
    if PARQUET in {path.suffix for path in (*job.corpus.paths, job.output)}:
        try:
            import_module("sidecar.bulk.tables")
        except ModuleNotFoundError as error:
            return f"Parquet needs {error.name}: {install_command(DAEMON, 'parquet')}"
    return None


def _exit_code(error: BaseException) -> int:
    match error:
        case KeyboardInterrupt():
            return EX_INTERRUPTED
        case InputError():
            return EX_NOINPUT
        case OutputError():
            return EX_CANTCREAT
        case ConnectionLost() | TimeoutError():
            return EX_UNAVAILABLE
    return EX_CONFIG


def _explain_resume(job: Job) -> None:
    if note := begun(job.output):
        kept = f"{note.rows} of {note.total} texts are in {folder_of(job.output)}"
        complain(f"{kept}: run the same command to resume")


def _as_json(note: Note, output: Path) -> str:
    summary = {
        "texts": note.total,
        "tokens": note.tokens,
        "seconds": round(note.seconds, 3),
        "truncated": note.truncated,
        "model": note.identity["model"]["name"],
        "quantization": note.identity["model"]["quantization"],
        "output": str(output),
    }
    return json.dumps(summary, indent=2)


def _summary(note: Note, output: Path) -> str:
    model = note.identity["model"]
    rate = note.total / note.seconds
    return (
        f"{output}: {note.total} texts, {note.tokens} tokens in {note.seconds:.1f} s "
        f"({rate:.0f} texts/s), {note.truncated} truncated; {model['name']} "
        f"in {model['quantization']}"
    )


class _Rate(ProgressColumn):
    """The current rate, in texts per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} texts/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function `show(stage, done, total)`, which adds or updates the bar of a stage."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Rate(),
        TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    # Without a terminal it would still print an empty line at the end.
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                # Work of an earlier run must not count towards this run's rate.
                tasks[stage] = progress.add_task(stage, total=total, completed=done)
            progress.update(tasks[stage], completed=done)

        yield show
