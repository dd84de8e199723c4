"""`sidecar logs`: operators' questions, on events that a real daemon wrote."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.logs import EXAMPLES

from .command import sidecar, sidecar_process

Events = list[dict[str, Any]]
GUIDE = Path(__file__).parents[2] / "docs" / "logs.md"


def line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def ask(event_log: Path, *arguments: str, **environ: str) -> str:
    done = sidecar("logs", "--file", str(event_log), *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def found(event_log: Path, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ask(event_log, "--json", *arguments).splitlines()]


ANSWERS = {
    "Is quantization applied?": ["quantization.applied", "bytes_after=22885450", "cosine_mean"],
    "Which batches were slow?": ["batch.completed", "compute_ms="],
    "What failed, and why?": ["deadline_exceeded", "it would take # s", "unknown_model"],
    "How did memory move?": ["bytes_before=90261528", "pss_bytes="],
    "Who asked most?": ["peer_pid", "tokens", "1000"],
    "How slow was each hour?": ["hour", "total_ms", "p99"],
}


@pytest.mark.parametrize("question", EXAMPLES)
def test_each_question_has_its_line(event_log: Path, question: str) -> None:
    """Every example of --help gives its answer, and is in the documentation."""
    answer = ask(event_log, *shlex.split(EXAMPLES[question])[2:])
    for part in ANSWERS[question]:
        assert part in answer
    assert f"\n{EXAMPLES[question]}\n" in GUIDE.read_text()


def test_help_shows_the_examples() -> None:
    """`logs --help` shows each example on a line of its own, ready to copy."""
    assert all(line in sidecar("logs", "--help").stdout for line in EXAMPLES.values())


def test_without_flags_every_event_is_a_line(written_events: Events, event_log: Path) -> None:
    """Without flags, `logs` prints every event on a line, in the order written."""
    written = written_events
    assert [each["event"] for each in found(event_log)] == [each["event"] for each in written]
    assert len(ask(event_log).splitlines()) == len(written)


def test_json_is_the_event_as_it_was_written(event_log: Path) -> None:
    """The output of `logs --json` is the events as written, and can be read by `logs` again."""
    again = sidecar_process("logs", "--file", "-", "--json", stdin=ask(event_log, "--json"))
    assert again.stdout == ask(event_log, "--json")
    assert [json.loads(line) for line in again.stdout.splitlines()] == [
        json.loads(line) for line in event_log.read_text().splitlines()
    ]


@pytest.mark.parametrize(
    "flags",
    [
        ["--event", "request.completed", "--where", "total_ms>20", "rows=1"],
        ["--where", "total_ms>20", "--where", "rows=1", "--event", "request.*"],
        ["--where", "total_ms > 20", "rows == 1", "--model", "all-MiniLM-L6-v2"],
    ],
)
def test_conditions_are_all_required(
    written_events: Events, event_log: Path, flags: list[str]
) -> None:
    """Events must match all conditions, however the flags are arranged."""
    expected = [e for e in written_events if e.get("total_ms", 0) > 20 and e["rows"] == 1]
    assert [each["total_ms"] for each in found(event_log, *flags)] == [
        e["total_ms"] for e in expected
    ]
    assert expected


def test_peers_are_told_by_process_and_by_user(written_events: Events, event_log: Path) -> None:
    """--peer selects requests by process id, or by user id or name."""
    pids = {e["peer_pid"] for e in written_events if "peer_pid" in e}
    counts = [len(found(event_log, "--peer", str(pid))) for pid in pids]
    assert sum(counts) == len(found(event_log, "--peer", "uid:1000")) > 0
    assert found(event_log, "--peer", "uid:root") == []


def test_times_bound_what_is_found(written_events: Events, event_log: Path) -> None:
    """--since and --until bound the time of the events printed."""
    assert found(event_log, "--since", "30s") == []
    assert found(event_log, "--until", "1h") == []
    assert len(found(event_log, "--since", "1h", "--until", "now")) == len(written_events)


def test_a_level_is_the_least(event_log: Path) -> None:
    """--level leaves out events below that level."""
    levels = {each["level"] for each in found(event_log, "--level", "info")}
    assert "debug" not in levels
    assert "info" in levels


def test_top_has_the_greatest_first(written_events: Events, event_log: Path) -> None:
    """--top prints the events with the largest values first, ten by default."""
    times = sorted((e["compute_ms"] for e in written_events if "compute_ms" in e), reverse=True)
    assert [each["compute_ms"] for each in found(event_log, "--top", "compute_ms")] == times[:10]
    top = found(event_log, "--top", "compute_ms", "--limit", "3", "--fields", "compute_ms")
    assert [each["compute_ms"] for each in top] == times[:3]
    assert list(top[0]) == ["ts", "level", "event", "compute_ms"]


def test_limit_keeps_the_last(written_events: Events, event_log: Path) -> None:
    """--limit keeps the latest events."""
    assert [each["event"] for each in found(event_log, "--limit", "2")] == [
        each["event"] for each in written_events[-2:]
    ]


def test_groups_are_counted_and_summed_up(written_events: Events, event_log: Path) -> None:
    """--by and --stats give the same counts and statistics as JSON and as a table."""
    flags = ["--event", "request.completed", "--by", "lane,op", "--stats", "rows,total_ms"]
    asked = [e for e in written_events if e["event"] == "request.completed"]
    groups = found(event_log, *flags)
    assert sum(group["count"] for group in groups) == len(asked)
    first = groups[0]
    its = [e for e in asked if (e["lane"], e["op"]) == (first["lane"], first["op"])]
    assert first["stats"]["rows"]["sum"] == sum(e["rows"] for e in its)
    assert first["stats"]["total_ms"]["max"] == max(e["total_ms"] for e in its)
    table = ask(event_log, *flags)
    assert f"{first['stats']['total_ms']['p50']:,.3f}"[:4] in table
    assert f"{first['stats']['rows']['sum']:,.0f}" in table


def test_a_table_does_not_lose_figures_in_a_narrow_terminal(event_log: Path) -> None:
    """A table folds names rather than truncate numbers."""
    assert "…" not in ask(event_log, "--by", "event,code,reason", "--stats", "rows,total_ms")


def test_broken_lines_are_told_and_do_no_harm(event_log: Path, tmp_path: Path) -> None:
    """Lines that are not events are counted and skipped, and the first one is located."""
    broken = tmp_path / "x.log"
    broken.write_bytes(b"Traceback:\n" + event_log.read_bytes() + b'{"ts":"20')
    done = sidecar("logs", "--file", str(broken), "--by", "level")
    assert done.returncode == 0
    assert done.stderr == f"sidecar: 2 lines are not events, the first at {broken}:1\n"
    assert "debug" in done.stdout


def test_nothing_of_a_peer_controls_the_terminal(written_events: Events, tmp_path: Path) -> None:
    """Escape sequences in a field are printed escaped."""
    evil = "\x1b[2J\x07[red]"
    event = {**written_events[0], "event": f"x{evil}", "model": evil, "reason": evil}
    path = tmp_path / "x.log"
    path.write_bytes(line(event))
    shown = [ask(path), ask(path, "--json"), ask(path, "--by", "event,model,reason")]
    assert all("\x1b" not in text and "\x07" not in text for text in shown)
    assert all("[red]" in text for text in shown)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--where", "total_ms"], "'total_ms' is not a condition: write FIELD, one of = !="),
        (["--where", "reason~("], "'(' is not a regular expression"),
        (["--since", "soon"], "'soon' is not a time: write how long ago"),
        (["--peer", "gid:3"], "'gid:3' is not a peer: use a PID or uid:NAME"),
        (["--peer", "uid:no-such-user"], "no user 'no-such-user' on this host"),
        (["--limit", "0"], "'0' must be a whole number above 0"),
        (["--by", "code", "--top", "rows"], "leave out --top and --fields"),
        (["--follow", "--by", "code"], "--follow never ends"),
        (["--follow", "--file", "another"], "--follow takes only one file"),
    ],
)
def test_what_cannot_be_asked_is_refused(event_log: Path, flags: list[str], message: str) -> None:
    """An invalid query exits with 2, as any usage error does, and a helpful message."""
    done = sidecar("logs", "--file", str(event_log), *flags, COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("flags", "doubt"),
    [
        (["--where", "totl_ms>5"], "field 'totl_ms'; did you mean total_ms?"),
        (["--event", "request.complete"], "event 'request.complete'; did you mean request.comp"),
        (["--by", "cod,hour"], "field 'cod'; did you mean code"),
        (["--stats", "row"], "field 'row'; did you mean rows"),
        (["--fields", "cod"], "field 'cod'; did you mean code"),
        (["--top", "total"], "field 'total'; did you mean total_ms"),
    ],
)
def test_a_name_that_nothing_has_is_told(event_log: Path, flags: list[str], doubt: str) -> None:
    """An unknown name only causes a warning, as another version may have written it."""
    done = sidecar("logs", "--file", str(event_log), *flags)
    assert done.returncode == 0
    assert done.stderr.startswith(f"sidecar: this version has no {doubt}")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """A missing file is reported in one line, with exit code 66."""
    done = sidecar("logs", "--file", str(tmp_path / "none.log"))
    assert (done.returncode, done.stdout) == (66, "")
    assert (
        done.stderr == f"sidecar: {tmp_path}/none.log cannot be read: No such file or directory\n"
    )


def test_a_host_without_a_journal_is_told_what_to_do(tmp_path: Path) -> None:
    """Without journalctl, `logs` exits with 66 and points to --file."""
    done = sidecar("logs", PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr == (
        "sidecar: there is no journal on this host: name files of events with --file\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error(event_log: Path, tmp_path: Path) -> None:
    """`sidecar logs | head` ends silently by SIGPIPE."""
    path = tmp_path / "x.log"
    path.write_bytes(event_log.read_bytes() * 100)
    command = [sys.executable, "-m", "sidecar", "logs", "--file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        asking.stdout.readline()
        asking.stdout.close()
        assert asking.stderr.read() == b""
    assert asking.returncode == -signal.SIGPIPE


@pytest.mark.slow
def test_a_file_is_followed_until_the_terminal_says_stop(
    written_events: Events, event_log: Path, tmp_path: Path
) -> None:
    """--follow prints events as they are written, and Ctrl-C ends it with exit code 0."""
    path = tmp_path / "x.log"
    first, second = line(written_events[0]), line(written_events[1])
    path.write_bytes(first)
    command = [sys.executable, "-m", "sidecar", "logs", "--json", "--follow", "--file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert json.loads(asking.stdout.readline())["event"] == json.loads(first)["event"]
        with path.open("ab") as log_file:
            log_file.write(second)
        assert json.loads(asking.stdout.readline())["event"] == json.loads(second)["event"]
        asking.send_signal(signal.SIGINT)
        assert asking.wait(60) == 0
        assert asking.stderr.read() == b""
