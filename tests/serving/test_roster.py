import pytest

from client_lib.wire.errors import BadRequest, UnknownModel
from sidecar.serving.roster import Roster


@pytest.mark.parametrize(
    ("served", "asked"),
    [
        ("org/a", "org/a"), ("org/a", "a"), ("a", "org/a"), ("a", "a"), ("org/a@v2", "a"),
        ("org/a@v2", "org/a"), ("org/a@v2", "a@v2"), ("org/a", "org/a@v2"),
    ],
)  # fmt: skip
def test_a_hub_id_is_the_same_with_and_without_organisation_and_revision(tiny, served, asked):
    """Whichever of these the daemon calls it, for embed and rerank alike."""
    model = tiny(name=served)
    roster = Roster([tiny(name="b"), model])
    assert roster.embedder(asked) is model
    assert roster.reranker(asked) is model


@pytest.mark.parametrize(
    "asked", ["other/a", "/a", "./a", "x/org/a", "A", "a/", "org/", "", "a@v1"]
)
def test_other_names_are_unknown(tiny, asked):
    """Of another organisation, or a path: a daemon does not know its clients' folders."""
    with pytest.raises(UnknownModel, match="is not served; served: org/a@v2"):
        Roster([tiny(name="org/a@v2")]).embedder(asked)


def test_a_name_that_may_be_several_is_refused(tiny):
    """Unless it is exactly one's own."""
    first, second = tiny(name="one/a"), tiny(name="two/a")
    with pytest.raises(UnknownModel, match="'a' may be one of several; served: one/a, two/a"):
        Roster([first, second]).embedder("a")
    own = tiny(name="a")
    assert Roster([first, own]).embedder("a") is own
    assert Roster([first, own]).embedder("one/a") is first


def test_a_reranker_by_its_short_name_does_not_embed(tiny):
    """It was found, and is of another kind."""
    with pytest.raises(BadRequest, match="is a reranker"):
        Roster([tiny(name="org/a", task="rerank")]).embedder("a")
