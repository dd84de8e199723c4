"""Control sequences from others are escaped in all output, and never reach the terminal."""

import io
import json
import re
import unicodedata
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from sidecar.cli import config, doctor, logs_output, main, terminal
from sidecar.cli.console import Console
from sidecar.cli.settings import settings_of
from sidecar.cli.terminal import complain, say, shown
from sidecar.cli.top import Watch
from sidecar.operate.doctor.finding import Finding, Section, Severity
from sidecar.operate.records import Record

from ..client_lib.fake_daemon import FakeDaemon

CLEAR, TITLE, C1 = "\x1b[2J", "\x1b]0;mine\x07", "\x9b31m"
EVIL = f"{CLEAR}{TITLE}{C1}\x7f\r\u202e\u2066\u2028\ud83d[red][/nothing]"
SHOWN = r"\u001b[2J\u001b]0;mine\u0007\u009b31m\u007f\u000d\u202e\u2066\u2028\ud83d[red][/nothing]"
CLI = Path(terminal.__file__).parent
OURS = "from sidecar.cli.console import Console\n"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def assert_harmless(text: str) -> None:
    """Assert that only rich's colour codes and newlines are unprintable."""
    for line in _COLOUR.sub("", text).split("\n"):
        assert line.isprintable(), line


def on_a_terminal(renderable: RenderableType) -> str:
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=400).print(renderable)
    return file.getvalue()


def test_every_command_prints_by_the_two_that_escape() -> None:
    """In `sidecar.cli`, only `terminal.py` prints and only `console.py` uses rich's console."""
    printing = re.compile(
        r"(?<![\w.])print\(|std(?:out|err)\.write\(|import Console$", re.MULTILINE
    )
    for path in CLI.glob("*.py"):
        found = set(printing.findall(path.read_text().replace(OURS, "")))
        assert found == ({"print("} if path.name == "terminal.py" else set()), path


def test_what_is_not_seen_is_written_as_what_it_is() -> None:
    """Controls, line separators, bidirectional controls and lone surrogates are escaped."""
    assert shown(EVIL) == SHOWN
    assert shown("Straße 東京 🙂 → [ok]") == "Straße 東京 🙂 → [ok]"
    assert shown("\U000e0001") == r"\U000e0001"


@given(st.text())
def test_nothing_that_controls_is_left(text: str) -> None:
    """Escaped text is printable, and escaped JSON still has the same value."""
    assert shown(text).isprintable()
    assert not {unicodedata.category(char) for char in shown(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    written = json.dumps(text)
    assert json.loads(shown(written)) == text


def test_lines_are_said_and_complaints_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`say` keeps newlines; `complain` prints a single line, whatever it quotes."""
    say(f"one {EVIL}\ntwo")
    complain(f"no model {EVIL}\nsidecar: all is well")
    printed = capsys.readouterr()
    assert printed.out == f"one {SHOWN}\ntwo\n"
    assert printed.err == f"sidecar: no model {SHOWN}\\u000asidecar: all is well\n"


def test_a_console_shows_text_wherever_it_stands() -> None:
    """A console escapes plain strings, table cells, titles, headings, live displays and status."""
    table = Table(EVIL, title=EVIL, caption=EVIL)
    table.add_row(EVIL)
    for page in (EVIL, table):
        printed = on_a_terminal(page)
        assert_harmless(printed)
        assert r"\u001b[2J" in _COLOUR.sub("", printed)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=400)
    with Live(table, console=console, auto_refresh=False), console.status(EVIL):
        pass
    assert not any(part in file.getvalue() for part in (CLEAR, TITLE, C1, "\u202e"))


def evil_status() -> dict[str, Any]:
    model = {"name": EVIL, "task": EVIL, "quantization": EVIL, "reason": EVIL, "max_tokens": 1}
    return {
        "version": EVIL, "state": EVIL, "healthy": True, "pid": EVIL, "socket": EVIL,
        "threads": EVIL, "models": [model], "requests": {"failed": {EVIL: 1}},
        "peers": [{"pid": EVIL, "uid": EVIL, "connections": 1}],
    }  # fmt: skip


@pytest.fixture
def evil_daemon(tmp_path: Path) -> Any:
    with FakeDaemon(tmp_path / "s") as daemon:
        status = json.loads(json.dumps(evil_status()).replace(r"\ud83d", ""))
        daemon.script = lambda _: {
            "status": status, "content_type": "text/plain", "text": f'x{{model="{CLEAR}"}} 1\n',
        }  # fmt: skip
        yield daemon


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["metrics"]])
def test_what_a_daemon_answers_is_shown(
    evil_daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """A daemon's answers are escaped in pages, JSON and metrics."""
    main([*command, "--socket", str(evil_daemon.socket)])
    printed = capsys.readouterr().out
    assert_harmless(printed)
    assert r"\u001b[2J" in printed


def test_the_live_page_shows_it_too(evil_daemon: FakeDaemon) -> None:
    """`top` escapes a daemon's answers, and the path of a socket without a daemon."""
    assert r"\u001b[2J" in on_a_terminal(Watch(evil_daemon.socket).look())
    assert_harmless(on_a_terminal(Watch(evil_daemon.socket).look()))
    assert_harmless(on_a_terminal(Watch(Path(f"/none{CLEAR}")).look()))


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("flags", [{}, {"json": True}], ids=["lines", "json"])
def test_events_are_shown(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: dict[str, Any],
    is_terminal: bool,
) -> None:
    """Events are escaped, including field names and fields known to logging libraries."""
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    names = ("model", "exception", "stack", "exc_info", "logger", f"{EVIL}\nx")
    fields = {"ts": EVIL, "level": EVIL, "event": f"{EVIL}\nx", **dict.fromkeys(names, EVIL)}
    fields["models"] = [EVIL, {EVIL: EVIL}]
    asked = Namespace(**{"json": False, "fields": [], "follow": False} | flags)
    logs_output.print_records([Record(0.0, fields)] * 2, asked)
    printed = capsys.readouterr().out
    assert_harmless(printed)
    assert len(printed.splitlines()) == 2
    assert ("\x1b[" in printed) == (is_terminal and not flags)


def test_findings_are_shown() -> None:
    """The findings of `doctor` are escaped."""
    finding = Finding(EVIL, Severity.ERROR, EVIL, EVIL)
    assert_harmless(on_a_terminal(doctor._render([Section(EVIL, (finding,))])))


def test_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """`config` escapes values, and prints brackets literally."""
    monkeypatch.setenv("SIDECAR_EMBEDDING_MODEL", f"[red]{CLEAR}")
    printed = on_a_terminal(config._table(settings_of(Namespace(env_file=None))))
    assert_harmless(printed)
    assert r"[red]\u001b[2J" in printed


@pytest.mark.parametrize(
    "command",
    [
        lambda path: ["status", "--socket", path],
        lambda path: ["prepare", path],
        lambda path: ["plan", path],
        lambda path: ["verify", path],
        lambda path: ["embed", path, "-o", "/x.npy"],
        lambda path: ["logs", "--file", path],
        lambda path: ["report", "--file", path],
        lambda path: ["config", "--env-file", path],
        lambda path: ["gateway", "--api-key-file", path],
    ],
    ids=lambda command: command("")[0],
)
def test_what_is_wrong_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], command: Callable[[str], list[str]]
) -> None:
    """An error message is a single escaped line, whatever path it quotes."""
    assert main(command(f"/none/{CLEAR}\n{C1}\udc80")) != 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert_harmless(printed.err)
    assert len(printed.err.splitlines()) == 1
