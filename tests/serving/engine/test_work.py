import numpy as np
import pytest

from client_lib.wire.errors import BadRequest
from client_lib.wire.messages import Embed, Rerank
from sidecar.models.rows import Row
from sidecar.serving.engine.work import WorkItem
from sidecar.serving.postprocess import Postprocess

PROMPTS = {"query": "q: ", "document": "passage: "}


def whole(asked):
    """All texts with their prompts, as they are tokenized."""
    return [part.prompt + text for part in asked.parts for text in part.texts]


def test_a_part_is_what_has_one_prompt(tiny):
    """The documents, and the query after them, so that a document's row has its index."""
    model = tiny(prompts=PROMPTS)
    asked = WorkItem.documents_of(model, Rerank(id=1, query="who?", documents=("he", "she")))
    assert whole(asked) == ["passage: he", "passage: she", "q: who?"]
    assert asked.inputs == 2


def test_texts_and_pairs_are_asked_for_as_they_are(tiny):
    """The query is the first of a pair, as cross-encoders are trained; no prompt is put there."""
    request = Rerank(id=1, query="who?", documents=("he", "she"))
    pairs = WorkItem.pairs_of(tiny(task="rerank", dimensions=1), request)
    assert [part.texts for part in pairs.parts] == [[("who?", "he"), ("who?", "she")]]
    assert (pairs.inputs, pairs.finish) == (2, Postprocess(1, normalize=False))
    texts = WorkItem.texts_of(tiny(prompts=PROMPTS), Embed(id=1, input=("he", "she"), role="query"))
    assert whole(texts) == ["q: he", "q: she"]
    assert texts.inputs == 2


def test_vectors_are_finished_as_asked_or_as_the_model_does(tiny):
    """A cosine is that of unit vectors, whatever the model says."""
    for own in (True, False):
        model = tiny(normalize=own)
        assert WorkItem.texts_of(model, Embed(id=1, input=("a",))).finish == Postprocess(8, own)
        for asked in (True, False):
            request = Embed(id=1, input=("a",), normalize=asked, dimensions=5)
            assert WorkItem.texts_of(model, request).finish == Postprocess(5, asked)
        rerank = Rerank(id=1, query="q", documents=("a",))
        assert WorkItem.documents_of(model, rerank).finish == Postprocess(8, normalize=True)


def test_a_caller_s_milliseconds_are_seconds(tiny):
    """And nothing where he did not say."""
    asked = [
        WorkItem.texts_of(tiny(), Embed(id=1, input=("a",), timeout_ms=each))
        for each in (None, 1_500)
    ]
    assert [each.timeout for each in asked] == [None, 1.5]


def rows(*lengths, truncated=()):
    return [
        Row(np.ones(length, np.int64), np.zeros(length, np.int64), truncated=index in truncated)
        for index, length in enumerate(lengths)
    ]


def test_a_text_without_enough_tokens_is_named(tiny):
    """The first of them; one of exactly so many is no such text, and the query has no index."""
    model = tiny(least_tokens=2)
    asked = WorkItem.documents_of(model, Rerank(id=1, query="q", documents=("a", "b", "c")))
    asked.refuse_empty(rows(2, 3, 2, 2))
    for lengths, told, index in (
        ((2, 1, 0, 1), "text 1 has no tokens for tiny", 1),
        ((2, 2, 1, 2), "text 2", 2),
        ((2, 2, 2, 1), "the query", None),
    ):
        with pytest.raises(BadRequest, match=told) as refused:
            asked.refuse_empty(rows(*lengths))
        assert refused.value.index == index


def test_texts_that_were_cut_are_told_by_index(tiny):
    """Without the query, which is none of the caller's texts; unless cutting is not allowed."""
    documents = ("a", "b", "c")
    for truncate in (True, False):
        request = Rerank(id=1, query="q", documents=documents, truncate=truncate)
        asked = WorkItem.documents_of(tiny(), request)
        assert asked.truncated(rows(1, 1, 1, 1)) == ()
        cut = rows(32, 5, 32, 32, truncated={0, 2, 3})
        if truncate:
            assert asked.truncated(cut) == (0, 2)
            continue
        with pytest.raises(BadRequest, match="text 0 is longer than the 32 tokens") as refused:
            asked.truncated(cut)
        assert refused.value.index == 0


def test_a_result_counts_in_what_a_row_holds(tiny):
    """Four bytes a number, of those that are kept."""
    sizes = [
        WorkItem.texts_of(tiny(), Embed(id=1, input=("a", "b", "c"), dimensions=each)).row_bytes
        for each in (8, 3)
    ]
    assert sizes[0] - sizes[1] == 4 * 5


def test_a_prompt_counts_in_what_a_row_holds(tiny):
    """As if it were before the text already; of a pair the document does."""
    plain = tiny()
    prompted = tiny(prompts={"p": "x" * 90}, default_prompt_name="p")
    request = Embed(id=1, input=("a" * 10, "b" * 30))
    sizes = [WorkItem.texts_of(model, request).row_bytes for model in (plain, prompted)]
    assert sizes[1] - sizes[0] == 90
    documents = [("c" * 20,), ("c" * 70,)]
    asks = [Rerank(id=1, query="q" * 500, documents=some) for some in documents]
    pairs = [WorkItem.pairs_of(tiny(task="rerank"), one).row_bytes for one in asks]
    assert pairs[1] - pairs[0] == 50
