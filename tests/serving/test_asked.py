from client_lib.wire.messages import Embed, Rerank
from sidecar.serving.asked import Asked

PROMPTS = {"query": "q: ", "document": "passage: "}


def whole(asked):
    """All texts with their prompts, as they are tokenized."""
    return [part.prompt + text for part in asked.parts for text in part.texts]


def test_a_part_is_what_has_one_prompt(tiny):
    """The documents, and the query after them, so that a document's row has its index."""
    model = tiny(prompts=PROMPTS)
    asked = Asked.documents_of(model, Rerank(id=1, query="who?", documents=("he", "she")))
    assert whole(asked) == ["passage: he", "passage: she", "q: who?"]
    assert asked.inputs == 2


def test_a_prompt_counts_in_what_a_row_holds(tiny):
    """As if it were before the text already; of a pair the document does."""
    plain = tiny()
    prompted = tiny(prompts={"p": "x" * 90}, default_prompt_name="p")
    request = Embed(id=1, input=("a" * 10, "b" * 30))
    sizes = [Asked.texts_of(model, request).row_bytes for model in (plain, prompted)]
    assert sizes[1] - sizes[0] == 90
    documents = [("c" * 20,), ("c" * 70,)]
    asks = [Rerank(id=1, query="q" * 500, documents=some) for some in documents]
    pairs = [Asked.pairs_of(tiny(task="rerank"), one).row_bytes for one in asks]
    assert pairs[1] - pairs[0] == 50
