"""Tiny tokenizers built from the package's own texts, stored as in folders on the hub."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

SIZE = 600
_ALPHABET = 120
MAX_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as its class in transformers defines it.

    `specials` take the first ids, in order; `roles` maps roles to special tokens.
    """

    kind: str
    tokenizer_class: str
    specials: tuple[str, ...]
    roles: Mapping[str, str]
    lowercase: bool = True


_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BERT_ROLES = dict(zip(("pad", "unk", "cls", "sep", "mask"), _BERT, strict=True))
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_ROBERTA_ROLES = {
    "bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>",
    "unk": "<unk>", "pad": "<pad>", "mask": "<mask>",
}  # fmt: skip
_ALBERT = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
_ALBERT_ROLES = {
    "bos": "[CLS]", "eos": "[SEP]", "sep": "[SEP]", "cls": "[CLS]",
    "unk": "<unk>", "pad": "<pad>", "mask": "[MASK]",
}  # fmt: skip

VOCABULARIES = {
    "wordpiece": Vocabulary("WordPiece", "BertTokenizer", _BERT, _BERT_ROLES),
    "cased": Vocabulary("WordPiece", "BertTokenizer", _BERT, _BERT_ROLES, lowercase=False),
    "distilbert": Vocabulary("WordPiece", "DistilBertTokenizer", _BERT, _BERT_ROLES),
    "electra": Vocabulary("WordPiece", "ElectraTokenizer", _BERT, _BERT_ROLES),
    "mpnet": Vocabulary(
        "WordPiece",
        "MPNetTokenizer",
        ("<s>", "<pad>", "</s>", "[UNK]", "<mask>"),
        {**_ROBERTA_ROLES, "unk": "[UNK]"},
    ),
    "bpe": Vocabulary("BPE", "RobertaTokenizer", _ROBERTA, _ROBERTA_ROLES),
    "modernbert": Vocabulary("BPE", "PreTrainedTokenizerFast", _BERT, _BERT_ROLES),
    "unigram": Vocabulary("Unigram", "XLMRobertaTokenizer", _ROBERTA, _ROBERTA_ROLES),
    "camembert": Vocabulary(
        "Unigram",
        "CamembertTokenizer",
        ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"),
        _ROBERTA_ROLES,
    ),
    "albert": Vocabulary("Unigram", "AlbertTokenizer", _ALBERT, _ALBERT_ROLES),
}


def write_tokenizer(name: str, folder: Path) -> None:
    """Write tokenizer.json, the vocabulary files and the two config files."""
    vocabulary = VOCABULARIES[name]
    tokenizer = Tokenizer.from_str(_made(name))
    tokenizer.save(str(folder / "tokenizer.json"))
    if vocabulary.kind != "Unigram":  # the tokenizers library cannot write a SentencePiece model
        tokenizer.model.save(str(folder))
    roles = {f"{role}_token": token for role, token in vocabulary.roles.items()}
    dump(folder / "special_tokens_map.json", roles)
    dump(folder / "tokenizer_config.json", {**_config(vocabulary), **roles})


def dump(path: Path, content: Any) -> None:
    """Write `content` as JSON."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")


def _config(vocabulary: Vocabulary) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": vocabulary.tokenizer_class,
        "model_max_length": MAX_TOKENS,
        "clean_up_tokenization_spaces": True,
    }
    if vocabulary.kind == "WordPiece":
        more = {"tokenize_chinese_chars": True, "strip_accents": None}
        return {**config, "do_lower_case": vocabulary.lowercase, **more}
    if vocabulary.tokenizer_class == "RobertaTokenizer":
        return {**config, "add_prefix_space": False, "trim_offsets": True, "errors": "replace"}
    return config


@cache
def _made(name: str) -> str:
    vocabulary = VOCABULARIES[name]
    tokenizer = _KINDS[vocabulary.kind](vocabulary)
    tokenizer.add_special_tokens([_special(token) for token in vocabulary.specials])
    tokenizer.post_processor = _template(vocabulary, tokenizer)
    return str(tokenizer.to_str())


def _special(token: str) -> AddedToken:
    # The mask token strips a preceding space in RoBERTa and its relatives, but not in BERT.
    return AddedToken(token, special=True, normalized=False, lstrip=token == "<mask>")


def _wordpiece(vocabulary: Vocabulary) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=vocabulary.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    words = _words(tokenizer)
    letters = list(_letters(words))
    pieces = [*vocabulary.specials, *letters, *(f"##{letter}" for letter in letters), *words]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces)) if index < SIZE}
    tokenizer.model = models.WordPiece(vocab, unk_token=vocabulary.roles["unk"])
    return tokenizer


def _bpe(vocabulary: Vocabulary) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    pieces = [*vocabulary.specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: dict[tuple[str, str], None] = {}
    for word in _words(tokenizer):  # merged from the start, letter by letter
        for end in range(1, len(word)):
            if len(pieces) < SIZE and word[: end + 1] not in pieces:
                merges[word[:end], word[end]] = None
                pieces.append(word[: end + 1])
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer.model = models.BPE(vocab, list(merges))
    return tokenizer


def _unigram(vocabulary: Vocabulary) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    words = _words(tokenizer)
    counts = {**dict.fromkeys(vocabulary.specials, 1), **_letters(words), **words}
    pieces = [(piece, math.log(count / 10_000)) for piece, count in counts.items()]
    unknown = vocabulary.specials.index(vocabulary.roles["unk"])
    tokenizer.model = models.Unigram(pieces[:SIZE], unknown)
    return tokenizer


def _words(tokenizer: Tokenizer) -> Counter[str]:
    """Return the words of the package's own texts, most frequent first.

    A trainer would break ties at random.
    """
    read = resources.files("sidecar.models").joinpath
    normalized = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    counts: Counter[str] = Counter()
    for name in ("calibration.txt", "probes.txt"):
        for line in read(name).read_text("utf-8").splitlines():
            split = tokenizer.pre_tokenizer.pre_tokenize_str(normalized(line))
            counts.update(word for word, _ in split)
    return Counter(dict(counts.most_common()))


def _letters(words: Counter[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        counts.update(dict.fromkeys(word, count))
    return Counter(dict(counts.most_common(_ALPHABET)))


_KINDS: Mapping[str, Callable[[Vocabulary], Tokenizer]] = {
    "WordPiece": _wordpiece,
    "BPE": _bpe,
    "Unigram": _unigram,
}


def _template(vocabulary: Vocabulary, tokenizer: Tokenizer) -> Any:
    cls, sep = vocabulary.roles["cls"], vocabulary.roles["sep"]
    if vocabulary.tokenizer_class == "RobertaTokenizer":
        ends = [(token, tokenizer.token_to_id(token)) for token in (sep, cls)]
        return processors.RobertaProcessing(*ends, add_prefix_space=False)
    between, second = (f"{sep} {sep}", 0) if cls == "<s>" else (sep, 1)
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {between} $B:{second} {sep}:{second}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in {cls, sep}],
    )
