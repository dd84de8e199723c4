"""The commands and links in the documentation are valid."""

import re
import shlex
from pathlib import Path

import pytest

from sidecar.cli import _parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
_SEPARATORS = {"|", "||", "&&", ";", "&"}


def commands() -> list[tuple[str, list[str]]]:
    """Return every `sidecar …` command in a code block: its place and its words."""
    found = []
    for page in PAGES:
        for block in re.findall(
            r"^```[a-z]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
        ):
            for line in block.replace("\\\n", " ").splitlines():
                found += [(f"{page.name}: {line}", words) for words in _sidecars(line)]
    return found


def _sidecars(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # not a shell command
        return []
    commands: list[list[str]] = [[]]
    for word in words:
        if word in _SEPARATORS:
            commands.append([])
        else:
            commands[-1].append(word)
    return [words[1:] for words in commands if words and Path(words[0]).name == "sidecar"]


def test_there_are_commands_to_check() -> None:
    """The README and the operations and logs pages have commands to check."""
    pages = {where.partition(":")[0] for where, _ in commands()}
    assert pages >= {"README.md", "operations.md", "logs.md"}


@pytest.mark.parametrize(("where", "words"), commands(), ids=[where for where, _ in commands()])
def test_every_command_is_understood(where: str, words: list[str]) -> None:
    """The command line parses every command in the documentation."""
    try:
        arguments = _parser(words).parse_args(words)
    except SystemExit:
        pytest.fail(f"{where} is refused")
    assert callable(arguments.run)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Every relative link in the documentation leads to an existing file."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_claim_of_security_names_tests_that_there_are() -> None:
    """Every claim in SECURITY.md names a test that exists."""
    page = (ROOT / "SECURITY.md").read_text()
    defended = page.split("## What is defended")[1].split("## What is not defended")[0]
    claims = [line for line in defended.splitlines() if line.startswith("- ")]
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(claims) > 30
    for claim in claims:
        named = re.findall(r"`(test_\w+)`", claim) or re.findall(r"`(tests/\S+)`", claim)
        assert named, claim
        missing = [n for n in named if f"def {n}(" not in sources and not (ROOT / n).exists()]
        assert not missing, claim
