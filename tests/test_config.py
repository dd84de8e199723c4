"""Settings: where each comes from, and what is refused."""

from pathlib import Path

import pytest

from sidecar.config import QUANTIZATIONS, ConfigError, resolve, to_config


def config(
    flags: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
    env_file: Path | None = None,
):
    return to_config(resolve(flags or {}, environ or {}, env_file))


def test_defaults() -> None:
    """Without any setting: int8, the embedded model, no reranker."""
    plain = config()
    assert (plain.use_quantization, plain.quantization) == (True, "int8")
    assert (plain.embedding_model, plain.reranker_model) == ("all-MiniLM-L6-v2", None)


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    """The nearest source wins, and each setting says which one that was."""
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
    """The usual spellings of true."""
    assert config(environ={"USE_QUANTIZATION": text}).use_quantization


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off"])
def test_use_quantization_false(text: str) -> None:
    """The usual spellings of false."""
    assert not config(environ={"USE_QUANTIZATION": text}).use_quantization


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_every_known_quantization_is_read(name: str) -> None:
    """The five names of the deployments that this replaces, in either case."""
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
        ("SIDECAR_ALLOW_USERS", ",", "has an empty place"),
        ("SIDECAR_ALLOW_USERS", "root,", "has an empty place"),
        ("SIDECAR_ALLOW_USERS", "0,,1", "has an empty place"),
        ("SIDECAR_ALLOW_USERS", "no-such-user", "names that this host knows, not 'no-such-user'"),
        ("SIDECAR_ALLOW_GROUPS", ", ,", "has an empty place"),
        ("SIDECAR_PROMPTS", '{"query": 1}', "every prompt must be a string"),
        ("SIDECAR_PROMPTS", '{"query": "q: "', "must be auto, a JSON object of prompts by name"),
        ("SIDECAR_PROMPTS", '{"query": "\\ud800"}', "surrogates not allowed"),
        ("SIDECAR_PROMPTS", "automatic", "No such file or directory"),
    ],
)
def test_wrong_value_names_the_setting_and_what_is_known(
    variable: str, value: str, known: str
) -> None:
    """A wrong value is one line with the variable, the value and what would be right."""
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
    """Nothing at all lists nobody, as the default does."""
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
    """A prompt keeps the blank at its end, and its newlines."""
    assert config(environ={"SIDECAR_PROMPTS": text}).prompts == expected


def test_prompts_may_stand_in_a_file(tmp_path: Path) -> None:
    """What is no object of strings there is refused by the file's name, in one line."""
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
    """A variable may hold newlines."""
    with pytest.raises(ConfigError) as caught:
        config(environ={"SIDECAR_PROMPTS": '{\n"query": 1\n}'})
    assert str(caught.value).startswith('SIDECAR_PROMPTS={ "query": 1 }: must be auto')


def test_env_file_is_read_as_shells_write_it(tmp_path: Path) -> None:
    """Comments, blank lines, quotes, export and other programs' variables."""
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
    """A misspelt setting and a line of another shape are named by line."""
    file = tmp_path / "env"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config(env_file=file)


def test_missing_env_file(tmp_path: Path) -> None:
    """A file that is not there is an error, not silence."""
    with pytest.raises(ConfigError, match="cannot be read"):
        config(env_file=tmp_path / "none")
