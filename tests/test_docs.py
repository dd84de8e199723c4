"""The commands and links in the documentation are valid."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from sidecar.cli import _parser
from sidecar.config import flag_of, resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
MKDOCS = ROOT / "mkdocs.yml"
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_to_headings(page: Path) -> None:
    """Every link to a section, on the same page or another, names a heading there."""
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    assert [
        f"{target}#{anchor}"
        for target, anchor in links
        if anchor not in anchors(page.parent / target if target else page)
    ] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    text = page.read_text()
    if included := re.fullmatch(r'--8<-- "(.*)"\n', text):
        return anchors(ROOT / included[1])
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation() -> None:
    """The site's navigation has every page of docs/, and no other."""
    listed = set(re.findall(r"^ +- (?:.*: )?(\S+\.md)$", MKDOCS.read_text(), re.MULTILINE))
    docs = ROOT / "docs"
    assert listed == {str(page.relative_to(docs)) for page in docs.rglob("*.md")}


def test_every_setting_is_documented() -> None:
    """The table of docs/configuration.md has every setting, in order, with its flag and default."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    section = page.split("## Settings\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    settings = resolve({}, {}, None)
    assert [row[0] for row in rows] == [f"| `{setting.variable}`" for setting in settings]
    for (_, flag, default, _), setting in zip(rows, settings, strict=True):
        assert flag == f"`{flag_of(setting.field.name)}`"
        if isinstance(setting.field.default, bool | int | float | str):
            assert default == f"`{_as_text(setting.field.default)}`"


def _as_text(default: bool | float | str) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_name_in_the_architecture_exists() -> None:
    """Every module, and every name beside it, in docs/architecture.md is in the code."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    places = re.findall(r"`((?:sidecar|client_lib|tests)/[\w/.]+)`((?:,?\s+`[\w.]+`)*)", page)
    assert len(places) > 80
    missing = []
    for path, names in places:
        if not (ROOT / path).exists():
            missing.append(path)
            continue
        known = defined_in(ROOT / path) if path.endswith(".py") else set()
        missing += [f"{path} {name}" for name in re.findall(r"`(.*?)`", names) if name not in known]
    assert missing == []


def defined_in(path: Path) -> set[str]:
    """Return the names that a module defines at its top level, and its classes' methods."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            names |= {each.id for each in node.targets if isinstance(each, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [
                m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


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
