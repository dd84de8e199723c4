import pytest

from client_lib.wire.errors import BadRequest, UnknownModel
from sidecar.serving.registry import ModelRegistry, prompt_text


@pytest.mark.parametrize(
    ("served", "asked"),
    [
        ("org/a", "org/a"), ("org/a", "a"), ("a", "org/a"), ("a", "a"), ("org/a@v2", "a"),
        ("org/a@v2", "org/a"), ("org/a@v2", "a@v2"), ("org/a", "org/a@v2"),
    ],
)  # fmt: skip
def test_a_hub_id_is_the_same_with_and_without_organisation_and_revision(tiny, served, asked):
    """A hub id matches with and without organisation and revision, on either side."""
    model = tiny(name=served)
    registry = ModelRegistry([tiny(name="b"), model])
    assert registry.embedder(asked) is model
    assert registry.reranker(asked) is model


@pytest.mark.parametrize(
    "asked", ["other/a", "/a", "./a", "x/org/a", "A", "a/", "org/", "", "a@v1"]
)
def test_other_names_are_unknown(tiny, asked):
    """Names of other organisations or revisions, and paths, are unknown models."""
    with pytest.raises(UnknownModel, match="is not served; served: org/a@v2"):
        ModelRegistry([tiny(name="org/a@v2")]).embedder(asked)


def test_the_first_of_a_task_is_the_default(tiny):
    """The first model of a task is its default; without a cross-encoder, an embedder reranks."""
    kinds = {"e": "embed", "f": "embed", "r": "rerank", "s": "rerank"}
    models = {name: tiny(name=name, task=task) for name, task in kinds.items()}

    def registry(names):
        return ModelRegistry([models[name] for name in names])

    for names, embedder, reranker in (("ef", "e", "e"), ("refs", "e", "r"), ("sre", "e", "s")):
        assert registry(names).embedder(None) is models[embedder], names
        assert registry(names).reranker(None) is models[reranker], names
    assert registry("ef").reranker("f") is models["f"]
    assert registry("rs").reranker(None) is models["r"]
    with pytest.raises(UnknownModel, match="no model for 'embed' is served; served: r, s"):
        registry("rs").embedder(None)


@pytest.mark.parametrize(
    ("name", "role", "default", "prompt"),
    [
        ("plain", None, "query", ""),
        ("plain", "query", "passage", ""),
        ("passage", "query", None, "p: "),
        (None, "query", "passage", "q: "),
        (None, "document", "query", "p: "),
        (None, None, "query", "q: "),
        (None, None, None, ""),
    ],
)
def test_a_prompt_is_that_of_its_name_or_role_or_the_model_s_own(tiny, name, role, default, prompt):
    """A prompt is chosen by name, then by role, then by the model's default."""
    prompts = {"query": "q: ", "passage": "p: ", "plain": ""}
    model = tiny(prompts=prompts, default_prompt_name=default)
    assert prompt_text(model, name=name, role=role) == prompt


def test_a_role_that_a_model_has_no_prompt_for_takes_the_default(tiny):
    """A role without a prompt gets the model's default prompt, or none."""
    for default, prompt in ((None, ""), ("other", "o: ")):
        model = tiny(prompts={"other": "o: "}, default_prompt_name=default)
        assert prompt_text(model, role="query") == prompt


def test_an_unknown_prompt_is_refused_with_those_that_there_are(tiny):
    """An unknown prompt is rejected with a list of the known ones."""
    for prompts, known in (({}, "none"), ({"a": "", "b": "x"}, "a, b")):
        with pytest.raises(BadRequest, match=f"prompt 'c' is unknown to tiny; known: {known}"):
            prompt_text(tiny(prompts=prompts), name="c")


def test_a_name_that_may_be_several_is_refused(tiny):
    """An ambiguous name is rejected, unless it is exactly that of one model."""
    first, second = tiny(name="one/a"), tiny(name="two/a")
    with pytest.raises(UnknownModel, match="'a' is ambiguous; served: one/a, two/a"):
        ModelRegistry([first, second]).embedder("a")
    own = tiny(name="a")
    assert ModelRegistry([first, own]).embedder("a") is own
    assert ModelRegistry([first, own]).embedder("one/a") is first


def test_a_reranker_by_its_short_name_does_not_embed(tiny):
    """Embedding with a reranker, even by its short name, is a bad request."""
    with pytest.raises(BadRequest, match="is a reranker"):
        ModelRegistry([tiny(name="org/a", task="rerank")]).embedder("a")
