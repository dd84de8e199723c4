import numpy as np
import pytest

from client_lib.wire.errors import BadRequest
from client_lib.wire.messages import Embed, Rerank
from sidecar.models.rows import Row
from sidecar.serving.engine.work import WorkItem
from sidecar.serving.postprocess import Postprocess

PROMPTS = {"query": "q: ", "document": "passage: "}


def whole(item):
    """Return all texts with their prompts, as they are tokenized."""
    return [part.prompt + text for part in item.parts for text in part.texts]


def test_a_part_is_what_has_one_prompt(tiny):
    """The query comes after the documents, so that row indexes are the documents' indexes."""
    model = tiny(prompts=PROMPTS)
    item = WorkItem.documents_of(model, Rerank(id=1, query="who?", documents=("he", "she")))
    assert whole(item) == ["passage: he", "passage: she", "q: who?"]
    assert item.inputs == 2


def test_texts_and_pairs_are_asked_for_as_they_are(tiny):
    """A pair is (query, document) without a prompt; texts to embed get the prompt of their role."""
    request = Rerank(id=1, query="who?", documents=("he", "she"))
    pairs = WorkItem.pairs_of(tiny(task="rerank", dimensions=1), request)
    assert [part.texts for part in pairs.parts] == [[("who?", "he"), ("who?", "she")]]
    assert (pairs.inputs, pairs.finish) == (2, Postprocess(1, normalize=False))
    texts = WorkItem.texts_of(tiny(prompts=PROMPTS), Embed(id=1, input=("he", "she"), role="query"))
    assert whole(texts) == ["q: he", "q: she"]
    assert texts.inputs == 2


def test_vectors_are_finished_as_asked_or_as_the_model_does(tiny):
    """Vectors are normalised as the request or the model says; cosines always use unit vectors."""
    for own in (True, False):
        model = tiny(normalize=own)
        assert WorkItem.texts_of(model, Embed(id=1, input=("a",))).finish == Postprocess(8, own)
        for item in (True, False):
            request = Embed(id=1, input=("a",), normalize=item, dimensions=5)
            assert WorkItem.texts_of(model, request).finish == Postprocess(5, item)
        rerank = Rerank(id=1, query="q", documents=("a",))
        assert WorkItem.documents_of(model, rerank).finish == Postprocess(8, normalize=True)


def test_a_caller_s_milliseconds_are_seconds(tiny):
    """A timeout in milliseconds becomes seconds, and no timeout stays None."""
    item = [
        WorkItem.texts_of(tiny(), Embed(id=1, input=("a",), timeout_ms=each))
        for each in (None, 1_500)
    ]
    assert [each.timeout for each in item] == [None, 1.5]


def rows(*lengths, truncated=()):
    return [
        Row(np.ones(length, np.int64), np.zeros(length, np.int64), truncated=index in truncated)
        for index, length in enumerate(lengths)
    ]


def test_a_text_without_enough_tokens_is_named(tiny):
    """The first text with too few tokens is rejected by index, and a query without one."""
    model = tiny(least_tokens=2)
    item = WorkItem.documents_of(model, Rerank(id=1, query="q", documents=("a", "b", "c")))
    item.refuse_empty(rows(2, 3, 2, 2))
    for lengths, message, index in (
        ((2, 1, 0, 1), "text 1 has no tokens for tiny", 1),
        ((2, 2, 1, 2), "text 2", 2),
        ((2, 2, 2, 1), "the query", None),
    ):
        with pytest.raises(BadRequest, match=message) as refused:
            item.refuse_empty(rows(*lengths))
        assert refused.value.index == index


def test_texts_that_were_cut_are_told_by_index(tiny):
    """Truncated documents are reported by index, without the query, or rejected if not allowed."""
    documents = ("a", "b", "c")
    for truncate in (True, False):
        request = Rerank(id=1, query="q", documents=documents, truncate=truncate)
        item = WorkItem.documents_of(tiny(), request)
        assert item.truncated(rows(1, 1, 1, 1)) == ()
        cut = rows(32, 5, 32, 32, truncated={0, 2, 3})
        if truncate:
            assert item.truncated(cut) == (0, 2)
            continue
        with pytest.raises(BadRequest, match="text 0 exceeds the 32-token limit") as refused:
            item.truncated(cut)
        assert refused.value.index == 0


def test_a_result_counts_in_what_a_row_holds(tiny):
    """A row's bytes include its result, four bytes per dimension kept."""
    sizes = [
        WorkItem.texts_of(tiny(), Embed(id=1, input=("a", "b", "c"), dimensions=each)).row_bytes
        for each in (8, 3)
    ]
    assert sizes[0] - sizes[1] == 4 * 5


def test_a_prompt_counts_in_what_a_row_holds(tiny):
    """A row's bytes include its prompt, and the document of a pair."""
    plain = tiny()
    prompted = tiny(prompts={"p": "x" * 90}, default_prompt_name="p")
    request = Embed(id=1, input=("a" * 10, "b" * 30))
    sizes = [WorkItem.texts_of(model, request).row_bytes for model in (plain, prompted)]
    assert sizes[1] - sizes[0] == 90
    documents = [("c" * 20,), ("c" * 70,)]
    asks = [Rerank(id=1, query="q" * 500, documents=some) for some in documents]
    pairs = [WorkItem.pairs_of(tiny(task="rerank"), one).row_bytes for one in asks]
    assert pairs[1] - pairs[0] == 50
