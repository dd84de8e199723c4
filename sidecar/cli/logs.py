"""`sidecar logs`: query the events."""

import argparse
import heapq
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from sidecar.cli import asking
from sidecar.cli.exits import EX_NOINPUT, EX_OK
from sidecar.cli.logs_output import print_groups, print_records
from sidecar.cli.terminal import complain
from sidecar.operate.aggregate import TIMES, Aggregation, Group
from sidecar.operate.journal import from_journal
from sidecar.operate.query import QueryError, number
from sidecar.operate.records import STDIN, Reading, Record, SourceError, follow_file

EXAMPLES = {
    "Is quantization applied?": "sidecar logs --event 'quantization.*'",
    "Which batches were slow?": "sidecar logs --event batch.completed --top compute_ms --limit 5",
    "What failed, and why?": (
        "sidecar logs --event '*failed' 'worker.*' peer.rejected peer.stalled "
        "--by event,code,reason"
    ),
    "How did memory move?": (
        "sidecar logs --event quantization.applied model.loaded server.memory engine.retired "
        "--fields model,bytes_before,bytes_after,pss_bytes"
    ),
    "Who asked most?": (
        "sidecar logs --event request.completed --by peer_uid,peer_pid --stats tokens"
    ),
    "How slow was each hour?": (
        "sidecar logs --event request.completed --since 1d --by hour --stats queue_ms,total_ms"
    ),
}
"""Common questions, and the command that answers each."""

_TOP = 10


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    examples = "\n".join(f"  {question}\n    {line}" for question, line in EXAMPLES.items())
    parser = commands.add_parser(
        "logs",
        help="query the events: filter, count and summarize them",
        description="Print the events that match, or statistics of them.",
        epilog=f"common questions and their answers:\n{examples}".replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    asking.add_flags(parser)
    shape = parser.add_argument_group("output")
    shape.add_argument(
        "--by", type=_names, default=[], metavar="FIELD,…",
        help=f"count by these fields, or by {', '.join(TIMES)} (UTC)",
    )  # fmt: skip
    shape.add_argument(
        "--stats", type=_names, default=[], metavar="FIELD,…",
        help="sum, mean, p50, p95, p99 and max of these fields",
    )  # fmt: skip
    shape.add_argument("--top", metavar="FIELD", help="the events with the largest FIELD first")
    shape.add_argument(
        "--fields", type=_names, default=[], metavar="FIELD,…", help="print only these fields"
    )
    shape.add_argument(
        "--limit", type=_count, metavar="N",
        help=f"print the last N events; with --top (default {_TOP}) or --by, the first N",
    )  # fmt: skip
    shape.add_argument("--follow", action="store_true", help="keep printing new events")
    shape.add_argument("--json", action="store_true", help="print JSON lines")
    parser.set_defaults(run=run, refuse=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer and report unreadable input on stderr; return 66 if there is no source."""
    if (conflict := _conflict(arguments)) is not None:
        arguments.refuse(conflict)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sidecar logs | head` ends quietly
    named = {*arguments.by, *arguments.stats, *arguments.fields} - set(TIMES)
    asking.say_what_is_doubtful(arguments, sorted(named | {arguments.top or "ts"}))
    reading = Reading()
    try:
        with suppress(KeyboardInterrupt):
            _answer(arguments, reading)
    except SourceError as error:
        complain(error)
        return EX_NOINPUT
    asking.say_what_was_skipped(reading)
    return EX_OK


def _conflict(arguments: argparse.Namespace) -> str | None:
    grouped = bool(arguments.by or arguments.stats)
    if grouped and (arguments.top or arguments.fields):
        return "--by and --stats print no individual events: leave out --top and --fields"
    if arguments.follow and (grouped or arguments.top or arguments.limit):
        return "--follow never ends: leave out --by, --stats, --top and --limit"
    if arguments.follow and len(arguments.files) > 1:
        return "--follow takes only one file"
    return None


def _answer(arguments: argparse.Namespace, reading: Reading) -> None:
    if arguments.follow:
        print_records(_followed(arguments, reading), arguments)
    elif arguments.by or arguments.stats:
        print_groups(_grouped(arguments, reading), arguments)
    elif arguments.top:
        print_records(_top(arguments, reading), arguments)
    elif arguments.limit:
        print_records(_last(arguments, reading), arguments)
    else:
        print_records(asking.records_of(arguments, reading), arguments)


def _followed(arguments: argparse.Namespace, reading: Reading) -> Iterator[Record]:
    query = asking.query_of(arguments)
    if arguments.files == [STDIN]:  # reading standard input follows it anyway
        return asking.records_of(arguments, reading)
    if arguments.files:
        found = follow_file(arguments.files[0], reading)
    else:
        found = from_journal(asking.asked_of(query, arguments.unit, follow=True), reading)
    return filter(query.predicate(), found)


def _grouped(arguments: argparse.Namespace, reading: Reading) -> list[Group]:
    aggregation = Aggregation(arguments.by, arguments.stats)
    with asking.progress() as opener:
        for record in asking.records_of(arguments, reading, opener):
            aggregation.add(record)
    return aggregation.groups()[: arguments.limit]


def _top(arguments: argparse.Namespace, reading: Reading) -> list[Record]:
    def size(record: Record) -> float:
        value = number(record.fields.get(arguments.top))
        return float("-inf") if value is None else value

    with asking.progress() as opener:
        found = asking.records_of(arguments, reading, opener)
        sized = (record for record in found if size(record) > float("-inf"))
        return heapq.nlargest(arguments.limit or _TOP, sized, key=size)


def _last(arguments: argparse.Namespace, reading: Reading) -> Iterable[Record]:
    with asking.progress() as opener:
        return deque(asking.records_of(arguments, reading, opener), maxlen=arguments.limit)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


@asking.flag_type
def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise QueryError(f"{text!r} must be a whole number above 0")
    return int(text)
