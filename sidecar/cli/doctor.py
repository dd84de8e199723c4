"""`sidecar doctor`: diagnose this host, its settings and its daemon, and advise what to do."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sidecar.cli.console import Console
from sidecar.cli.planning import host_and_plan, precision
from sidecar.cli.settings import add_flags, flags_of
from sidecar.cli.terminal import say
from sidecar.operate.doctor.examine import examine
from sidecar.operate.doctor.facts import Case
from sidecar.operate.doctor.finding import Finding, Section, Severity, worst

_EXIT = {Severity.OK: 0, Severity.NOTE: 0, Severity.WARNING: 1, Severity.ERROR: 2}
_STYLE = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.ERROR: "bold red",
}


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "doctor",
        help="diagnose problems and advise what to do",
        description="Check the host, settings, models, permissions and daemon, without changing "
        "anything. Pass it the daemon's settings. Exits with 0 for notes at most, 1 for warnings, "
        "2 for errors.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine the host, print the findings, and return the exit code of the worst one."""
    case = Case(
        flags=flags_of(arguments),
        environ=dict(os.environ),
        env_file=arguments.env_file,
        plan=host_and_plan,
        precision=precision,
    )
    with Console(stderr=True).status("examining"):
        sections = examine(case)
    if arguments.json:
        say(json.dumps(_as_map(sections), indent=2))
    else:
        Console().print(_render(sections))
    return _EXIT[worst(sections)]


def _as_map(sections: Sequence[Section]) -> dict[str, Any]:
    findings = [
        {"symptom": section.symptom, **asdict(finding), "severity": finding.severity.name.lower()}
        for section in sections
        for finding in section.findings
    ]
    return {"severity": worst(sections).name.lower(), "findings": findings}


def _render(sections: Sequence[Section]) -> RenderableType:
    parts: list[RenderableType] = []
    for section in filter(lambda section: section.findings, sections):
        parts += [Text(section.symptom, style="bold"), _table(section.findings), ""]
    return Group(*parts, _summary(sections))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        severity = Text(finding.severity.name.lower(), style=_STYLE[finding.severity])
        text = Text(finding.found)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="dim")
        table.add_row("", severity, finding.check, text)
    return table


def _summary(sections: Sequence[Section]) -> Text:
    found = [finding.severity for section in sections for finding in section.findings]
    counts = {severity: found.count(severity) for severity in Severity}
    errors, warnings = counts[Severity.ERROR], counts[Severity.WARNING]
    text = f"{errors} errors, {warnings} warnings, {counts[Severity.NOTE]} notes"
    return Text(text, style=_STYLE[worst(sections)])
