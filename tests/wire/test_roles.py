"""Which prompt is a role's."""

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
    """In the order of sentence-transformers, whatever the order of the prompts."""
    assert role_prompt_name(role, prompts) == expected


def test_an_empty_prompt_is_one() -> None:
    """The library takes it, and does not look further."""
    assert role_prompt_name("document", {"document": "", "passage": "p: "}) == "document"


def test_the_roles() -> None:
    """Two, as `encode_query` and `encode_document` are."""
    assert ROLES == ("query", "document")
