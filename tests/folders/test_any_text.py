"""Random Unicode text through each kind of tokenizer.

Takes seconds by default, and minutes with `--hypothesis-profile=minutes`.
"""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .case import GRAPH, Case
from .compare import Library, opened
from .conftest import Workshop
from .pipelines import KNOWN, MEAN

_SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "<s>", "</s>", "<pad>", "<mask>", "##s", "▁", "Ġ", " ", "A")
# Lone surrogates are not valid Unicode text, and the protocol rejects them.
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
_MIXED = st.lists(st.sampled_from(_SPECIAL) | _TEXTS, max_size=12).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("family", [*KNOWN, "static"])
def test_any_text_has_the_library_s_tokens(family: str, workshop: Workshop) -> None:
    """The token ids of random Unicode text, with or without special tokens, match the library's."""
    modules = () if family == "static" else MEAN
    case = Case(name=family, holds="", family=family, modules=modules, expected=GRAPH)
    folder = workshop.write(case)
    model, library = opened(folder, "embed", workshop.cache), Library(folder, "embed")

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @example("")
    @given(_MIXED)
    def same_ids(text: str) -> None:
        assert model.tokenize([text])[0].ids.tolist() == library.ids(text)

    same_ids()
