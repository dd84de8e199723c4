"""Settings that cannot be read, are misspelt, or contradict each other."""

from pathlib import Path

import pytest

from sidecar.config import resolve_each, to_config, variables
from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.settings import check_contradictions, check_names, check_values
from sidecar.serving.scheduler.limits import QueueLimits


def contradictions(**environ: str) -> list[str]:
    settings, _ = resolve_each({}, environ, None)
    sources = {setting.field.name: setting.source for setting in settings}
    findings = list(check_contradictions(to_config(settings), sources))
    assert all(finding.severity is Severity.WARNING for finding in findings)
    assert all(finding.check == "settings" and finding.advice for finding in findings)
    return [finding.found for finding in findings]


def test_settings_that_can_be_read_are_fine() -> None:
    """If all settings can be read, the finding is OK and names those that were given."""
    (finding,) = check_values(*resolve_each({"threads": "2"}, {}, None))
    assert finding.severity is Severity.OK
    number = len(variables())
    assert finding.found == f"{number} settings; set: SIDECAR_THREADS"
    environ = {"SIDECAR_MAX_INPUTS": "7"}
    (finding,) = check_values(*resolve_each({"threads": "2"}, environ, None))
    assert sorted(finding.found.partition("set: ")[2].split(", ")) == [
        "SIDECAR_MAX_INPUTS", "SIDECAR_THREADS",
    ]  # fmt: skip
    (finding,) = check_values(*resolve_each({}, {}, None))
    assert finding.found == f"{number} settings; set: none"


def test_every_wrong_value_is_an_error() -> None:
    """Every wrong value is an error, not only the first, and the other settings still apply."""
    environ = {"SIDECAR_THREADS": "many", "QUANTIZATION_CONFIG": "int2", "SIDECAR_MAX_INPUTS": "7"}
    settings, wrong = resolve_each({}, environ, None)
    findings = list(check_values(settings, wrong))
    assert [finding.severity for finding in findings] == [Severity.ERROR] * 2
    assert {finding.found.partition("=")[0] for finding in findings} == {
        "SIDECAR_THREADS", "QUANTIZATION_CONFIG",
    }  # fmt: skip
    assert all("`sidecar config` lists all" in finding.advice for finding in findings)
    config = to_config(settings)
    assert (config.quantization, config.threads, config.max_inputs) == ("int8", 0, 7)


def test_a_wrong_line_of_a_file_hides_no_other(tmp_path: Path) -> None:
    """Wrong lines of a settings file are all reported, and the good ones still count."""
    file = tmp_path / "env"
    file.write_text("SIDECAR_THREAD=2\nSIDECAR_MAX_INPUTS=7\nwhat\n")
    settings, wrong = resolve_each({}, {}, file)
    assert [str(error).partition(": ")[0] for error in wrong] == [f"{file}:1", f"{file}:3"]
    assert to_config(settings).max_inputs == 7


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SIDECAR_THREAD", "SIDECAR_THREADS"),
        ("SIDECAR_MAX_QEUE_ROWS", "SIDECAR_MAX_QUEUE_ROWS"),
        ("USE_QUANTISATION", "USE_QUANTIZATION"),
        ("QUANTIZATION_CONFG", "QUANTIZATION_CONFIG"),
    ],
)
def test_a_name_that_looks_like_a_setting_is_a_warning(name: str, meant: str) -> None:
    """A misspelt setting is a warning that suggests the setting that was meant."""
    (finding,) = check_names(["PATH", name])
    assert finding.severity is Severity.WARNING
    assert finding.found == f"{name} is not a setting"
    assert finding.advice == f"did you mean {meant}?"


def test_names_are_told_in_order() -> None:
    """Unknown names are reported in alphabetical order, each once."""
    names = ["SIDECAR_Z_OTHER", "SIDECAR_THREAD", "PATH", "SIDECAR_A_OTHER", "SIDECAR_THREAD"]
    assert [finding.found.split()[0] for finding in check_names(names)] == [
        "SIDECAR_A_OTHER", "SIDECAR_THREAD", "SIDECAR_Z_OTHER",
    ]  # fmt: skip


def test_other_names_are_other_programs() -> None:
    """Unrelated names are ignored; an unknown name with the prefix SIDECAR_ is a note."""
    assert list(check_names(["PATH", "HOME", "SIDECAR_THREADS"])) == []
    (finding,) = check_names(["SIDECAR_PORT_ANNOUNCER"])
    assert finding.severity is Severity.NOTE


def test_quantization_named_and_turned_off() -> None:
    """Enabling quantization in one setting and disabling it in the other is a warning."""
    (found,) = contradictions(USE_QUANTIZATION="false", QUANTIZATION_CONFIG="int4")
    assert "QUANTIZATION_CONFIG=int4 has no effect" in found
    (found,) = contradictions(USE_QUANTIZATION="true", QUANTIZATION_CONFIG="none")
    assert "USE_QUANTIZATION=true has no effect" in found


def test_settings_that_agree() -> None:
    """Quantization settings that do not contradict each other cause no warning."""
    assert contradictions() == []
    assert contradictions(USE_QUANTIZATION="true") == []
    assert contradictions(QUANTIZATION_CONFIG="none") == []
    assert contradictions(USE_QUANTIZATION="true", QUANTIZATION_CONFIG="int4") == []
    assert contradictions(USE_QUANTIZATION="false") == []
    assert contradictions(USE_QUANTIZATION="false", QUANTIZATION_CONFIG="none") == []


def test_a_request_that_would_always_be_refused() -> None:
    """Allowing larger requests than one process may queue is a warning."""
    (found,) = contradictions(SIDECAR_MAX_INPUTS="10000")
    assert "always refused" in found
    most = QueueLimits().of_lone_process.rows
    assert contradictions(SIDECAR_MAX_INPUTS=str(most)) == []
    (found,) = contradictions(SIDECAR_MAX_INPUTS=str(most + 1))
    assert f"SIDECAR_MAX_INPUTS={most + 1} allows larger requests" in found
    assert f"may queue ({most} texts)" in found
    # A quarter of what one user may queue, which is three quarters of the whole queue.
    few = {"SIDECAR_MAX_QUEUE_ROWS": "4000", "SIDECAR_MAX_PEER_SHARE": "0.25"}
    assert contradictions(**few, SIDECAR_MAX_INPUTS="750") == []
    (found,) = contradictions(**few, SIDECAR_MAX_INPUTS="751")
    assert "one process may queue (750 texts)" in found
