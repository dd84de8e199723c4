"""Which prompt a role gets."""

import pytest

from client_lib.wire.roles import ROLES, Role, role_prompt_name


@pytest.mark.parametrize(
    ("role", "prompts", "expected"),
    [
        ("query", ["document", "query"], "query"),
        ("query", ["document", "passage", "queries"], None),
        ("document", ["query", "corpus", "passage", "document"], "document"),
        ("document", ["corpus", "passage"], "passage"),
        ("document", ["query", "corpus"], "corpus"),
        ("document", ["query", "documents"], None),
        ("query", [], None),
    ],
)
def test_the_first_name_that_there_is(role: Role, prompts: list[str], expected: str | None) -> None:
    """A role gets the first of its prompt names that exists, in sentence-transformers' order."""
    assert role_prompt_name(role, prompts) == expected


def test_an_empty_prompt_is_one() -> None:
    """An empty prompt is used like any other, as in the library."""
    assert role_prompt_name("document", {"document": "", "passage": "p: "}) == "document"


def test_the_roles() -> None:
    """There are two roles, as there are `encode_query` and `encode_document`."""
    assert ROLES == ("query", "document")
