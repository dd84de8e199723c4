"""Settings: their sources, and which values are refused."""

import grp
import pwd
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidecar.config import (
    QUANTIZATIONS,
    ConfigError,
    flag_of,
    read_env_file,
    resolve,
    resolve_each,
    similar,
    to_config,
    variables,
)


def config(
    flags: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
    env_file: Path | None = None,
):
    return to_config(resolve(flags or {}, environ or {}, env_file))


def test_defaults() -> None:
    """The defaults are int8, the bundled embedding model and no reranker."""
    plain = config()
    assert (plain.use_quantization, plain.quantization) == (True, "int8")
    assert (plain.embedding_model, plain.reranker_model) == ("all-MiniLM-L6-v2", None)


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    """A flag overrides the environment, which overrides the file; each setting has its source."""
    file = tmp_path / "env"
    file.write_text("SIDECAR_THREADS=1\nSIDECAR_MAX_INPUTS=1\nQUANTIZATION_CONFIG=none\n")
    settings = resolve({"threads": "3"}, {"SIDECAR_THREADS": "2", "SIDECAR_MAX_INPUTS": "2"}, file)
    found = {s.field.name: (s.value, s.source) for s in settings}
    assert found["threads"] == (3, "flag")
    assert found["max_inputs"] == (2, "environment")
    assert found["quantization"] == ("none", "env file")
    assert found["drain_seconds"] == (30.0, "default")


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "on"])
def test_use_quantization_true(text: str) -> None:
    """USE_QUANTIZATION accepts the usual spellings of true, in either case."""
    assert config(environ={"USE_QUANTIZATION": text}).use_quantization


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off"])
def test_use_quantization_false(text: str) -> None:
    """USE_QUANTIZATION accepts the usual spellings of false, in either case."""
    assert not config(environ={"USE_QUANTIZATION": text}).use_quantization


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_every_known_quantization_is_read(name: str) -> None:
    """Every known quantization is accepted, in either case."""
    assert config(environ={"QUANTIZATION_CONFIG": name.upper()}).quantization == name


@pytest.mark.parametrize(
    ("variable", "value", "known"),
    [
        ("QUANTIZATION_CONFIG", "int2", "auto, int8, int4, fp16, none"),
        ("SIDECAR_DEVICE", "gpu", "auto, cpu, cuda"),
        ("USE_QUANTIZATION", "maybe", "true, 1, yes, on, false"),
        ("SIDECAR_THREADS", "-1", "whole number"),
        ("SIDECAR_THREADS", "two", "whole number"),
        ("SIDECAR_MAX_INPUTS", "0", "at least 1"),
        ("SIDECAR_MAX_TEXT_BYTES", "1023", "at least 1024"),
        ("SIDECAR_MAX_TOKENS", "7", "0 or a whole number of at least 8"),
        ("SIDECAR_MAX_TOKENS", "-8", "0 or a whole number of at least 8"),
        ("SIDECAR_DRAIN_SECONDS", "soon", "a number from 0 to 86400"),
        ("SIDECAR_DRAIN_SECONDS", "nan", "a number from 0 to 86400"),
        ("SIDECAR_INT8_FLOOR", "1.5", "from 0 to 1"),
        ("SIDECAR_LOG_LEVEL", "loud", "debug, info"),
        ("SIDECAR_SOCKET", "", "must be a path"),
        ("SIDECAR_ALLOW_USERS", ",", "has an empty entry"),
        ("SIDECAR_ALLOW_USERS", "root,", "has an empty entry"),
        ("SIDECAR_ALLOW_USERS", "0,,1", "has an empty entry"),
        ("SIDECAR_ALLOW_USERS", "no-such-user", "names known to this host, not 'no-such-user'"),
        ("SIDECAR_ALLOW_GROUPS", ", ,", "has an empty entry"),
        ("SIDECAR_PROMPTS", '{"query": 1}', "every prompt must be a string"),
        ("SIDECAR_PROMPTS", '{"query": "q: "', "must be auto, a JSON object of prompts by name"),
        ("SIDECAR_PROMPTS", '{"query": "\\ud800"}', "surrogates not allowed"),
        ("SIDECAR_PROMPTS", "automatic", "No such file or directory"),
    ],
)
def test_wrong_value_names_the_setting_and_what_is_known(
    variable: str, value: str, known: str
) -> None:
    """An invalid value is reported in one line with the variable, the value and what is valid."""
    with pytest.raises(ConfigError) as caught:
        config(environ={variable: value})
    message = str(caught.value)
    assert message.startswith(f"{variable}={value}")
    assert known in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "expected"), [("", set()), ("  ", set()), ("root", {0}), (" 0 , 1000", {0, 1000})]
)
def test_users_are_listed_by_name_or_number(text: str, expected: set[int]) -> None:
    """Users and groups are given by name or number; empty text is the empty set, as by default."""
    assert config(environ={"SIDECAR_ALLOW_USERS": text}).allow_users == expected
    assert config(environ={"SIDECAR_ALLOW_GROUPS": text}).allow_groups == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("{}", {}),
        ("auto", "auto"),
        ("Auto", "auto"),
        ('{"query": "query: ", "title": ""}', {"query": "query: ", "title": ""}),
        ('{"query": "Instruct: find\\nQuery:"}', {"query": "Instruct: find\nQuery:"}),
    ],
)
def test_prompts_are_none_or_known_or_stated(text: str, expected: object) -> None:
    """Prompts are empty, "auto" or a JSON object, whose trailing spaces and newlines are kept."""
    assert config(environ={"SIDECAR_PROMPTS": text}).prompts == expected


def test_prompts_may_stand_in_a_file(tmp_path: Path) -> None:
    """Prompts may be in a file; anything but an object of strings is refused in one line."""
    file = tmp_path / "prompts.json"
    file.write_text('\ufeff{\n  "query": "Frage: "\n}\n')
    assert config(flags={"prompts": str(file)}).prompts == {"query": "Frage: "}
    for wrong in ("", "[]", '"query"', '{"query": null}', "{"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=rf"^--prompts={file}: must be auto.*[^\n]+$"):
            config(flags={"prompts": str(file)})
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="codec"):
        config(flags={"prompts": str(file)})
    with pytest.raises(ConfigError, match="Is a directory"):
        config(flags={"prompts": str(tmp_path)})


def test_a_wrong_object_of_many_lines_is_told_in_one() -> None:
    """An invalid value with newlines is reported in one line."""
    with pytest.raises(ConfigError) as caught:
        config(environ={"SIDECAR_PROMPTS": '{\n"query": 1\n}'})
    assert str(caught.value).startswith('SIDECAR_PROMPTS={ "query": 1 }: must be auto')


def test_env_file_is_read_as_shells_write_it(tmp_path: Path) -> None:
    """A file may have comments, blank lines, quotes, `export` and unrelated variables."""
    file = tmp_path / "env"
    file.write_text(
        "# settings\n\nexport USE_QUANTIZATION='false'\nOTHER=1\n"
        'SIDECAR_RERANKER_MODEL = "/m x"\n'
    )
    read = config(env_file=file)
    assert not read.use_quantization
    assert read.reranker_model == "/m x"


@pytest.mark.parametrize(
    ("text", "message"),
    [("SIDECAR_THREAD=2\n", ":1: SIDECAR_THREAD is not a setting"), ("\nwhat\n", ":2: expected")],
)
def test_env_file_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    """A misspelt setting and a malformed line are reported with their line number."""
    file = tmp_path / "env"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config(env_file=file)


def test_missing_env_file(tmp_path: Path) -> None:
    """A missing --env-file is an error."""
    with pytest.raises(ConfigError, match="cannot be read"):
        config(env_file=tmp_path / "none")


@pytest.mark.parametrize(
    ("variable", "least", "below"),
    [
        ("SIDECAR_THREADS", "0", "-1"),
        ("SIDECAR_MAX_QUEUE_ROWS", "1", "0"),
        ("SIDECAR_MAX_QUEUE_TOKENS", "1", "0"),
        ("SIDECAR_MAX_QUEUE_BYTES", "1", "0"),
        ("SIDECAR_MAX_MEMORY_BYTES", "0", "-1"),
        ("SIDECAR_CACHE_BYTES", "0", "-1"),
        ("SIDECAR_MAX_CONNECTIONS", "1", "0"),
        ("SIDECAR_MAX_INPUTS", "1", "0"),
        ("SIDECAR_MAX_TEXT_BYTES", "1024", "1023"),
        ("SIDECAR_MAX_FRAME_BYTES", "1024", "1023"),
        ("SIDECAR_MAX_TOKENS", "8", "7"),
        ("SIDECAR_INT8_FLOOR", "0", "-0.01"),
        ("SIDECAR_INT4_FLOOR", "0", "-0.01"),
        ("SIDECAR_MAX_PEER_SHARE", "0", "-0.01"),
        ("SIDECAR_STALL_SECONDS", "0.1", "0.09"),
        ("SIDECAR_DRAIN_SECONDS", "0", "-1"),
        ("SIDECAR_HANG_SECONDS", "1", "0.9"),
        ("SIDECAR_LOG_SAMPLE", "0", "-0.1"),
        ("SIDECAR_SLOW_MS", "0", "-1"),
    ],
)
def test_a_number_has_a_least(variable: str, least: str, below: str) -> None:
    """The minimum of a number is accepted, and anything below it is refused."""
    found = {s.variable: s.value for s in resolve({}, {variable: least}, None)}
    assert found[variable] == float(least)
    with pytest.raises(ConfigError, match=variable):
        config(environ={variable: below})


@pytest.mark.parametrize(
    ("variable", "most", "above"),
    [
        ("SIDECAR_INT8_FLOOR", "1", "1.01"),
        ("SIDECAR_INT4_FLOOR", "1", "1.01"),
        ("SIDECAR_MAX_PEER_SHARE", "1", "1.01"),
        ("SIDECAR_STALL_SECONDS", "86400", "86401"),
        ("SIDECAR_DRAIN_SECONDS", "86400", "86401"),
        ("SIDECAR_HANG_SECONDS", "86400", "86401"),
        ("SIDECAR_LOG_SAMPLE", "1", "1.1"),
        ("SIDECAR_SLOW_MS", "86400000", "86400001"),
    ],
)
def test_a_share_or_a_time_has_a_most(variable: str, most: str, above: str) -> None:
    """The maximum of a fraction or time is accepted; more, infinity and "" are refused."""
    found = {s.variable: s.value for s in resolve({}, {variable: most}, None)}
    assert found[variable] == float(most)
    for wrong in (above, "inf", ""):
        with pytest.raises(ConfigError, match=variable):
            config(environ={variable: wrong})


def test_every_default_is_what_the_documentation_says() -> None:
    """Every default is that in the installed environment file."""
    lines = Path(__file__).parents[1].joinpath("systemd", "sidecar.env").read_text().splitlines()
    documented = dict(line[1:].split("=", 1) for line in lines if re.match("#[A-Z0-9_]+=", line))
    of_service = {"SIDECAR_SOCKET", "SIDECAR_CACHE_DIR"}  # whose defaults differ in a service
    defaults = resolve({}, {}, None)
    given = {name: text for name, text in documented.items() if text and name not in of_service}
    assert len(given) > 20
    stated = {s.variable: s.value for s in resolve({}, given, None)}
    for setting in defaults:
        if setting.variable in given:
            assert stated[setting.variable] == setting.value, setting.variable


def test_no_length_is_the_models_own() -> None:
    """SIDECAR_MAX_TOKENS=0 means the model's own limit."""
    assert config(environ={"SIDECAR_MAX_TOKENS": "0"}).max_tokens == 0
    assert config(environ={"SIDECAR_MAX_TOKENS": "512"}).max_tokens == 512


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CACHE_DIRECTORY": "/var/cache/a:/b", "XDG_CACHE_HOME": "/x"}, "/var/cache/a"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/sidecar"),
        ({"HOME": "/h"}, "/h/.cache/sidecar"),
    ],
)
def test_the_cache_is_the_services_or_the_users(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str
) -> None:
    """The cache is the service's, or under XDG_CACHE_HOME, or under the user's home."""
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert config().cache_dir == Path(expected)


def test_a_user_without_a_home_has_the_hosts_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home, the cache is /var/cache/sidecar, and a path starting with ~ is refused."""

    def fail(_: Path) -> Path:
        raise RuntimeError("no home")

    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", fail)
    assert config().cache_dir == Path("/var/cache/sidecar")
    with pytest.raises(ConfigError, match="no such home directory"):
        config(environ={"SIDECAR_CACHE_DIR": "~nobody/x"})


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading ~ in a path is expanded, as no shell does it for a variable."""
    monkeypatch.setenv("HOME", "/h")
    assert config(environ={"SIDECAR_SOCKET": "~/s"}).socket == Path("/h/s")


@pytest.mark.parametrize("name", ["USE_QUANTISATION", "SIDECAR_THREAD", "QUANTIZATION_CONFG"])
def test_a_name_that_is_nearly_a_settings_is_known(name: str) -> None:
    """A misspelt variable is matched to a setting, an unrelated one is not."""
    assert similar(name) in variables()
    for other in ("PATH", "SIDECAR", "SIDECAR_NOTHING_OF_THIS_KIND", "QUANTIZE"):
        assert similar(other) is None


def test_groups_and_users_are_looked_up_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and group names are looked up separately, and whitespace around values is stripped."""
    user, group = SimpleNamespace(pw_uid=7, pw_gid=9), SimpleNamespace(gr_gid=8)
    monkeypatch.setattr(pwd, "getpwnam", {"both": user}.__getitem__)
    monkeypatch.setattr(grp, "getgrnam", {"both": group}.__getitem__)
    names = {"SIDECAR_ALLOW_USERS": " both ", "SIDECAR_ALLOW_GROUPS": "both"}
    found = config(environ=names)
    assert (found.allow_users, found.allow_groups) == ({7}, {8})
    assert config(environ={"SIDECAR_THREADS": " 3 "}).threads == 3


def test_flags_are_named_as_they_are_written() -> None:
    """A flag has dashes, and its error names the flag, not the variable."""
    assert flag_of("max_queue_rows") == "--max-queue-rows"
    with pytest.raises(ConfigError, match=r"^--max-queue-rows=x: must be a whole number"):
        config(flags={"max_queue_rows": "x"}, environ={"SIDECAR_MAX_QUEUE_ROWS": "5"})


def test_a_line_of_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    """The last of two lines wins, an unclosed quote is part of the value, and ; is a comment."""
    file = tmp_path / "env"
    file.write_text(
        "SIDECAR_THREADS=2\n; SIDECAR_THREADS=9\nSIDECAR_THREADS=3\n"
        "SIDECAR_RERANKER_MODEL=\"a\nSIDECAR_EMBEDDING_MODEL='a=b'\nOTHER=\"x'\n"
    )
    assert read_env_file(file) == {
        "SIDECAR_THREADS": "3", "SIDECAR_RERANKER_MODEL": '"a', "SIDECAR_EMBEDDING_MODEL": "a=b",
        "OTHER": "\"x'",
    }  # fmt: skip


def test_a_wrong_value_leaves_the_others(tmp_path: Path) -> None:
    """An invalid setting gets its default; all errors are returned, those of the file first."""
    file = tmp_path / "env"
    file.write_text("what\nSIDECAR_THREADS=3\n")
    environ = {"SIDECAR_MAX_INPUTS": "x", "QUANTIZATION_CONFIG": "none"}
    settings, wrong = resolve_each({}, environ, file)
    assert [str(error).partition(": ")[0] for error in wrong] == [
        f"{file}:1", "SIDECAR_MAX_INPUTS=x",
    ]  # fmt: skip
    found = {s.field.name: (s.value, s.source) for s in settings}
    assert found["max_inputs"] == (2_048, "default")
    assert found["quantization"] == ("none", "environment")
    assert found["threads"] == (3, "env file")
