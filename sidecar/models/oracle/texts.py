"""The texts on which a tokenizer and a graph are compared with the library's.

Each covers something that tokenizers treat differently: case, accents, scripts without spaces,
control characters, whitespace, special tokens inside a text, texts over the limit.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sidecar.models.description import Task
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Text

_CURIOUS = (
    "",
    " ",
    "\n",
    "\t  \r\n ",
    "a",
    "A Tale of TWO Cities",
    "İstanbul ǅ ẞ ß ſ Σίσυφος ΣΑΣ",
    "naïve café Ångström coöperate",
    "nai\u0308ve cafe\u0301 A\u030angstro\u0308m",  # the same with combining marks
    "e\u0301\u0323 q\u0307\u0323 \u0344",  # marks that normalisation reorders
    "ﬁne ﬂour № ½ ² ℌ ＡＢＣ ㎏",  # characters that compatibility forms decompose
    "我们在北京吃饭。他说：“你好！”",
    "東京都は日本の首都です。カタカナとｶﾀｶﾅ、がぎぐ",
    "한국어 문장입니다 각",
    "مرحبا بالعالم، كيف حالك؟ السَّلام",
    "שָׁלוֹם עולם",
    "हिन्दी में लिखा हुआ पाठ",
    "ภาษาไทยไม่มีช่องว่าง",
    "👍🏽 👩\u200d👩\u200d👧 🇫🇷 😀text😀 ❤\ufe0f",
    "0 1,234.56 1e-9 ２３ ٣٤ 0x1F v1.2.3-rc.4",
    "null\x00bell\x07escape\x1bdelete\x7fnext\x85",
    "zero\u200bwidth\u200cjoin\u200der\ufeffmark soft\u00adhyphen",
    "no\u00a0break\u2003em\u2028line\u2029paragraph\u3000ideographic",
    "replacement \ufffd private \ue000 astral 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠜎",
    "  leading, and trailing  ",
    "many     blanks\t\ttabs\n\n\nlines",
    "hello,world;(a+b)=c/d\\e|f~g`h^i$j%k&l*m@n#o!?",
    "don't can't we'll it’s “quoted” ‘single’ — dash – … …",
    "https://example.org/a?b=c&d=%20#e user@example.org C:\\path\\file.txt",
    "snake_case camelCase kebab-case __init__ ##hash ▁bar Ġbyte",
    "x" * 300,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
)
# Enough words to exceed the limit of most models; a longer limit is not reached here.
_WORDS = ("the", "cat", "sat", "and", "looked", "at", "the", "moon", "while", "rain", "fell")
_MOST_WORDS = 20_000
_MOST_ADDED = 64


class Probe(NamedTuple):
    """A text or pair, and the name of the prompt put before it; None for the folder's default."""

    text: Text
    prompt_name: str | None = None


def id_probes(
    task: Task, prompt_names: Iterable[str], added: Sequence[str], limit: int
) -> list[Probe]:
    """Return the probes whose token ids are compared.

    `added` are the tokenizer's special and added tokens; `limit` is the model's longest row.
    """
    texts = [*_CURIOUS, *_with_tokens(added[:_MOST_ADDED]), *_overlong(limit)]
    if task == "rerank":
        return [*map(Probe, _pairs(texts)), *map(Probe, probe_inputs(task)[:16])]
    prompted = [
        Probe(text, name) for name in prompt_names for text in (_CURIOUS[0], *_CURIOUS[5:8])
    ]
    return [*map(Probe, texts), *prompted, *map(Probe, probe_inputs(task))]


def output_probes(task: Task) -> list[Probe]:
    """Return the probes whose vectors or scores are compared: short, long and unusual ones."""
    curious = [text for text in _CURIOUS if text.strip()]
    if task == "rerank":
        return [*map(Probe, _pairs(curious[::3])), *map(Probe, probe_inputs(task)[:32])]
    return [*map(Probe, curious[::2]), *map(Probe, probe_inputs(task)[::2])]


def _with_tokens(added: Sequence[str]) -> list[str]:
    """Return a text around each token, and texts of all tokens in a row."""
    inside = [f"before {token} after{token}end" for token in added]
    return [*inside, "".join(added), " ".join(added)] if added else []


def _overlong(limit: int) -> list[str]:
    """Return texts around and over the limit, with different words at both ends."""
    counts = {
        count for count in (limit - 3, limit - 2, limit - 1, 2 * limit) if 0 < count < _MOST_WORDS
    }
    return [
        " ".join(["first", *(_WORDS[n % len(_WORDS)] for n in range(count)), "last"])
        for count in sorted(counts)
    ]


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return each text as a query and as a document, next to short ones and to each other."""
    turned = [*texts[1:], *texts[:1]]
    return [
        *(("a query", text) for text in texts),
        *((text, "a document") for text in texts),
        *zip(texts, turned, strict=True),
    ]
