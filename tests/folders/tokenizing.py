"""Cases about tokenization and truncation."""

from collections.abc import Iterator, Mapping

from .case import GRAPH, Case, Edit, Outcome, refused
from .edits import drops, inside, removes, sets, shortens_vocabulary, tokens_outside
from .pipelines import MEAN

_CONFIG, _JSON, _MAP = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
_ST = "sentence_bert_config.json"
_CUT = {"max_length": 20, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
_PAD = {
    "strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": None,
    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
}  # fmt: skip
_NO_FILES = (_CONFIG, _MAP)
# Edits that apply to every kind of tokenizer.
_ANY: Mapping[str, tuple[Edit, ...]] = {
    "tokenizer.json without a post-processor": (sets(_JSON, post_processor=None),),
    "truncation_side: left": (sets(_CONFIG, truncation_side="left"),),
    "truncation in tokenizer.json": (sets(_JSON, truncation=_CUT),),
    "padding in tokenizer.json": (sets(_JSON, padding=_PAD),),
    "added tokens in tokenizer_config.json only": (
        shortens_vocabulary(2),
        tokens_outside("[Q]", "[D]"),
    ),
    "special tokens in tokenizer_config.json only": (
        shortens_vocabulary(2),
        tokens_outside("<q>", "<doc>", special=True),
    ),
    "do_lower_case in sentence_bert_config.json": (sets(_ST, do_lower_case=True),),
    "tokenizer_class: PreTrainedTokenizerFast": (
        sets(_CONFIG, tokenizer_class="PreTrainedTokenizerFast"),
    ),
    "padding_side: left": (sets(_CONFIG, padding_side="left"),),
}
_WORDPIECE: Mapping[str, tuple[Edit, ...]] = {
    "do_lower_case: false over a tokenizer.json that does": (sets(_CONFIG, do_lower_case=False),),
    "do_lower_case: true over a tokenizer.json that does not": (
        inside(_JSON, "normalizer", lowercase=False),
    ),
    "strip_accents: false": (sets(_CONFIG, strip_accents=False),),
    "tokenize_chinese_chars: false": (sets(_CONFIG, tokenize_chinese_chars=False),),
    "vocab.txt, no tokenizer.json": (removes(_JSON),),
    "no tokenizer_config.json": (removes(_CONFIG),),
    "tokenizer.json alone": (removes(_CONFIG, _MAP, "vocab.txt"),),
    "no tokenizer_class": (drops(_CONFIG, "tokenizer_class"),),
    "tokenizer_class of the slow kind": (sets(_CONFIG, tokenizer_class="BertTokenizerFast"),),
    "model_input_names without token types": (
        sets(_CONFIG, model_input_names=["input_ids", "attention_mask"]),
    ),
    "cls_token: [MASK]": (sets(_CONFIG, cls_token="[MASK]"), sets(_MAP, cls_token="[MASK]")),
    "a tokenizer of other lengths than the model": (sets(_CONFIG, model_max_length=512),),
    "an added token with a space in it": (
        shortens_vocabulary(1),
        tokens_outside("quick brown"),
    ),
    "an added token that takes the spaces": (
        shortens_vocabulary(1),
        tokens_outside("fox", lstrip=True, rstrip=True),
    ),
    "an added token that is a whole word only": (
        shortens_vocabulary(1),
        tokens_outside("over", single_word=True),
    ),
    "additional_special_tokens": (
        shortens_vocabulary(2),
        sets(_CONFIG, additional_special_tokens=["[X1]", "[X2]"]),
    ),
    "added_tokens.json": (
        shortens_vocabulary(2),
        sets("added_tokens.json", **{"[A1]": 598, "[A2]": 599}),
    ),
    "keys of tokenizer_config.json that change nothing": (
        sets(_CONFIG, never_split=None, do_basic_tokenize=True, name_or_path="x",
             stride=0, truncation_strategy="longest_first", max_length=10),
    ),
}  # fmt: skip
_BPE: Mapping[str, tuple[Edit, ...]] = {
    "add_prefix_space: true": (sets(_CONFIG, add_prefix_space=True),),
    "vocab.json and merges.txt, no tokenizer.json": (removes(_JSON),),
    "trim_offsets: false": (sets(_CONFIG, trim_offsets=False),),
    "no tokenizer_config.json": (removes(_CONFIG),),
    "a mask token that takes no space": (
        sets(_CONFIG, mask_token={"__type": "AddedToken", "content": "<mask>", "lstrip": False,
                                  "rstrip": False, "normalized": True, "single_word": False}),
    ),
}  # fmt: skip
_UNIGRAM: Mapping[str, tuple[Edit, ...]] = {
    "add_prefix_space: false": (sets(_CONFIG, add_prefix_space=False),),
    "a normalizer that the class does not have": (sets(_JSON, normalizer={"type": "NFKC"}),),
    "no tokenizer_config.json": (removes(_CONFIG),),
    "no tokenizer.json, no vocabulary": (removes(_JSON),),
}
_TOKENIZERS: Mapping[str, tuple[str, Mapping[str, tuple[Edit, ...]]]] = {
    "WordPiece": ("bert", _WORDPIECE),
    "BPE": ("roberta", _BPE),
    "Unigram": ("xlm-roberta", _UNIGRAM),
}
_LIMITS: Mapping[str, tuple[Edit, ...]] = {
    "max_seq_length over model_max_length": (
        sets(_ST, max_seq_length=60),
        sets(_CONFIG, model_max_length=24),
    ),
    "max_seq_length under model_max_length": (sets(_ST, max_seq_length=16),),
    "no max_seq_length": (removes(_ST),),
    "max_seq_length: null": (sets(_ST, max_seq_length=None),),
    "model_max_length of 1e30": (removes(_ST), sets(_CONFIG, model_max_length=int(1e30))),
    "no limit stated": (removes(_ST), drops(_CONFIG, "model_max_length")),
    "a limit over the table of positions": (
        sets(_ST, max_seq_length=512),
        sets(_CONFIG, model_max_length=512),
    ),
}
_OLD_NAMES = ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


def tokenizer_cases() -> Iterator[Case]:
    """Yield the edits that apply to every kind of tokenizer, for each kind."""
    for kind, (family, _) in _TOKENIZERS.items():
        for holds, edits in _ANY.items():
            yield _case(family, kind, holds, edits)


def kind_cases(kind: str) -> Iterator[Case]:
    """Yield the edits that apply to one kind of tokenizer."""
    family, table = _TOKENIZERS[kind]
    for holds, edits in table.items():
        expected = refused("no other vocabulary file") if holds.endswith("no vocabulary") else GRAPH
        yield _case(family, kind, holds, edits, expected)


def _case(
    family: str, kind: str, holds: str, edits: tuple[Edit, ...], expected: Outcome = GRAPH
) -> Case:
    return Case(name=f"{family}: {kind}, {holds}", holds=holds, family=family, modules=MEAN,
                edits=edits, expected=expected)  # fmt: skip


def vocabulary_cases() -> Iterator[Case]:
    """Yield vocabularies of other families, and one that does not fit the model."""
    pairs = (
        ("bert", "cased", "a cased WordPiece"),
        ("bert", "unigram", "another family's tokenizer"),
        ("bert", "bpe", "another family's tokenizer"),
        ("xlm-roberta", "wordpiece", "another family's tokenizer"),
        ("distilbert", "cased", "a cased WordPiece"),
    )
    for family, tokenizer, holds in pairs:
        yield Case(name=f"{family}: {holds}, {tokenizer}", holds=holds, family=family,
                   tokenizer=tokenizer, modules=MEAN, expected=GRAPH)  # fmt: skip
    yield Case(
        name="bert: a vocabulary larger than the table",
        holds="a vocabulary that is larger than the table of embeddings",
        family="bert",
        modules=MEAN,
        config={"vocab_size": 500},
        expected=refused("500"),
    )


def limit_cases() -> Iterator[Case]:
    """Yield the places where a folder may state its maximum number of tokens."""
    for holds, edits in _LIMITS.items():
        for family in ("bert", "roberta"):
            yield _case(family, "limit", holds, edits)
    for name in _OLD_NAMES:
        edits = (removes(_ST), sets(f"sentence_{name}_config.json", max_seq_length=16))
        yield _case("roberta", f"sentence_{name}_config.json", "an older file name's limit", edits)
