"""The library's tokenizer classes and what each builds from a vocabulary.

A class in transformers 5 takes only the vocabulary from tokenizer.json. It builds the normalizer,
pre-tokenizer and post-processor itself, from the fields of tokenizer_config.json.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer, Precompiled
from tokenizers.processors import RobertaProcessing, TemplateProcessing

Token: TypeAlias = str | AddedToken
Tokens: TypeAlias = Mapping[str, Token]
Fields: TypeAlias = Mapping[str, Any]

PLAIN = "PreTrainedTokenizer"
_SPACE = "▁"  # SentencePiece's
_UNK_OF_XLM_ROBERTA = 3


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A vocabulary: `pieces` with ids or scores, the `merges` of a BPE, and a charsmap or None."""

    pieces: Any
    merges: Any = ()
    charsmap: bytes | None = None


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """A class: the `model` it builds, its default special `tokens`, and how to assemble it.

    `token_types` is whether its rows have token types. `as_added` converts a special token to what
    the class adds. `extra` are special tokens to add if the folder defines none. `post_processor`
    is called once all tokens have ids.
    """

    model: str
    tokens: Mapping[str, str]
    backend: Callable[[Vocabulary, Fields, Tokens], Tokenizer]
    post_processor: Callable[[Tokenizer, Tokens, Fields], Any]
    token_types: bool = False
    as_added: Callable[[str, Token], Token] = lambda _, token: token
    extra: tuple[str, ...] = ()


def _word_piece(vocabulary: Vocabulary, fields: Fields, tokens: Tokens) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocabulary.pieces, unk_token=str(tokens["unk_token"])))
    tokenizer.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=fields.get("tokenize_chinese_chars", True),
        strip_accents=fields.get("strip_accents"),
        lowercase=fields.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _byte_level(vocabulary: Vocabulary, fields: Fields, _: Tokens) -> Tokenizer:
    model = BPE(
        vocab=vocabulary.pieces,
        merges=vocabulary.merges,
        dropout=None,
        continuing_subword_prefix="",
        end_of_word_suffix="",
        fuse_unk=False,
    )
    tokenizer = Tokenizer(model)
    prefix = fields.get("add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _unigram(vocabulary: Vocabulary, fields: Fields, unknown: int) -> Tokenizer:
    tokenizer = Tokenizer(Unigram(vocabulary.pieces, unk_id=unknown, byte_fallback=False))
    if vocabulary.charsmap is not None:
        tokenizer.normalizer = Precompiled(vocabulary.charsmap)
    scheme = "always" if fields.get("add_prefix_space", True) else "never"
    words = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
    return tokenizer


def _xlm_roberta(vocabulary: Vocabulary, fields: Fields, _: Tokens) -> Tokenizer:
    return _unigram(vocabulary, fields, _UNK_OF_XLM_ROBERTA)


def _camembert(vocabulary: Vocabulary, fields: Fields, tokens: Tokens) -> Tokenizer:
    pieces = [piece for piece, _ in vocabulary.pieces]
    unknown = str(tokens["unk_token"])
    return _unigram(vocabulary, fields, pieces.index(unknown) if unknown in pieces else 0)


def _with_id(tokenizer: Tokenizer, token: Token) -> tuple[str, int]:
    number = tokenizer.token_to_id(str(token))
    if number is None:  # unexpected: every special token has been added
        raise ValueError(f"special token {str(token)!r} has no id")
    return str(token), number


def _bert_template(tokenizer: Tokenizer, tokens: Tokens, _: Fields) -> TemplateProcessing:
    cls, sep = tokens["cls_token"], tokens["sep_token"]
    return TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[_with_id(tokenizer, cls), _with_id(tokenizer, sep)],
    )


def _roberta_processing(tokenizer: Tokenizer, tokens: Tokens, fields: Fields) -> RobertaProcessing:
    return RobertaProcessing(
        _with_id(tokenizer, tokens["sep_token"]),
        _with_id(tokenizer, tokens["cls_token"]),
        trim_offsets=fields.get("trim_offsets", True),
        add_prefix_space=fields.get("add_prefix_space", False),
    )


def _mpnet_processing(tokenizer: Tokenizer, tokens: Tokens, _: Fields) -> RobertaProcessing:
    return _roberta_processing(tokenizer, tokens, {})


def _bos_eos_template(tokenizer: Tokenizer, tokens: Tokens, _: Fields) -> TemplateProcessing:
    bos, eos = str(tokens["bos_token"]), str(tokens["eos_token"])
    return TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[_with_id(tokenizer, bos), _with_id(tokenizer, eos)],
    )


def _as_mpnet_adds(name: str, token: Token) -> Token:
    if isinstance(token, AddedToken):
        return token
    return AddedToken(token, lstrip=name == "mask_token", rstrip=False)


def _as_camembert_adds(name: str, token: Token) -> Token:
    if isinstance(token, AddedToken) or name != "mask_token":
        return token
    return AddedToken(token, lstrip=True, special=True)


_OF_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_OF_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_BERT = TokenizerClass("WordPiece", _OF_BERT, _word_piece, _bert_template, token_types=True)
_ROBERTA = TokenizerClass("BPE", _OF_ROBERTA, _byte_level, _roberta_processing)
_MPNET = TokenizerClass(
    "WordPiece",
    {**_OF_ROBERTA, "unk_token": "[UNK]"},
    _word_piece,
    _mpnet_processing,
    as_added=_as_mpnet_adds,
)
_CAMEMBERT = TokenizerClass(
    "Unigram",
    _OF_ROBERTA,
    _camembert,
    _bos_eos_template,
    as_added=_as_camembert_adds,
    extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
)
CLASSES: Mapping[str, TokenizerClass | None] = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": replace(_BERT, token_types=False),
    **dict.fromkeys(
        ("ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer", "LayoutLMTokenizer"),
        _BERT,
    ),
    "RobertaTokenizer": _ROBERTA,
    "LongformerTokenizer": _ROBERTA,
    "MPNetTokenizer": _MPNET,
    "XLMRobertaTokenizer": TokenizerClass("Unigram", _OF_ROBERTA, _xlm_roberta, _bos_eos_template),
    "CamembertTokenizer": _CAMEMBERT,
    PLAIN: None,
    "TokenizersBackend": None,
}
"""Classes by name, without "Fast"; None uses tokenizer.json as it is."""

REGISTERED = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "ernie": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "xlm-roberta-xl": PLAIN,
}
"""The class that `AutoTokenizer` uses for a model_type, unless the folder names another."""
