"""Prompts: which one a call means, and how the daemon is made to use it."""

import pytest

from client_lib.compat import prompts
from client_lib.compat.prompts import Asked
from client_lib.compat.served import Served


def served(known: dict[str, str], default: str | None) -> Served:
    return Served("small", 8, 96, True, known, default, None, None)


@pytest.mark.parametrize(
    ("prompt", "name", "default", "expected"),
    [
        (None, None, None, ""),
        (None, None, "query", "q: "),
        (None, "document", "query", "d: "),
        ("mine: ", None, "query", "mine: "),
        ("mine: ", "document", "query", "mine: "),
        ("", None, "query", ""),
    ],
)
def test_a_call_s_own_goes_before_its_name_and_that_before_the_default(
    prompt: str | None, name: str | None, default: str | None, expected: str
) -> None:
    """A call's prompt takes precedence over a prompt name, and that over the default."""
    known = {"query": "q: ", "document": "d: "}
    assert prompts.resolve(known, default, prompt=prompt, name=name) == expected


@pytest.mark.parametrize(
    ("known", "default", "prefix", "expected"),
    [
        ({"query": "q: "}, None, "q: ", Asked("query", "")),
        ({"query": "q: "}, "query", "q: ", Asked("query", "")),
        ({"query": "q: "}, None, "mine: ", Asked(None, "mine: ")),
        ({"query": "q: "}, None, "", Asked(None, "")),
        ({"query": "q: ", "document": ""}, "query", "mine: ", Asked("document", "mine: ")),
        ({"query": "q: ", "document": ""}, "query", "", Asked("document", "")),
    ],
)
def test_the_daemon_adds_no_prompt_of_its_own(
    known: dict[str, str], default: str | None, prefix: str, expected: Asked
) -> None:
    """A prompt is requested by name or prepended here, never on top of another one."""
    assert prompts.ask(served(known, default), prefix) == expected


def test_a_default_that_cannot_be_left_out_is_told() -> None:
    """A custom prompt is refused if the daemon would put its default prompt before it."""
    with pytest.raises(ValueError, match=r"default prompt 'query', and no empty prompt .*'query'"):
        prompts.ask(served({"query": "q: "}, "query"), "mine: ")
