"""Cases about families and the modules after the transformer: pooling, Dense, a classifier."""

from collections.abc import Iterator, Mapping
from typing import Any

from .case import GRAPH, LIBRARY, Case, Edit, Module, Outcome, refused
from .edits import drops, inside, removes, saved_by_version_6, sets
from .generator import WIDTH

KNOWN = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "electra", "camembert", "ernie")
SLOW = ("albert", "modernbert", "nomic_bert")
_FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
_POOLING = "1_Pooling/config.json"
_NORMALIZE = Module("Normalize")
_OWN = "config_sentence_transformers.json"


def pooled(*modes: str) -> Module:
    """Return a Pooling module as stored on the hub, with a flag for each mode."""
    flags = {f"pooling_mode_{flag}": flag in modes for flag in (*_FLAGS, "lasttoken")}
    return Module("Pooling", {"word_embedding_dimension": WIDTH, **flags})


def dense(into: int, activation: str = "torch.nn.modules.activation.Tanh", **more: Any) -> Module:
    """Return a Dense module; its input has the transformer's width unless `more` overrides it."""
    own = {"in_features": WIDTH, "out_features": into, "bias": True}
    return Module("Dense", {**own, "activation_function": activation, **more})


MEAN = (pooled("mean_tokens"), _NORMALIZE)
CLS = (pooled("cls_token"),)
_IDENTITY = "torch.nn.modules.linear.Identity"
_PRODUCT: Mapping[str, tuple[Module, ...]] = {
    "mean pooling, Normalize": MEAN,
    "cls pooling": CLS,
    "max pooling": (pooled("max_tokens"),),
    "mean pooling, Dense, Normalize": (pooled("mean_tokens"), dense(16), _NORMALIZE),
}
_SINGLE: Mapping[str, tuple[Module, ...]] = {
    "mean_sqrt_len pooling": (pooled("mean_sqrt_len_tokens"),),
    "weighted mean pooling": (pooled("weightedmean_tokens"), _NORMALIZE),
    "last token pooling": (pooled("lasttoken"), _NORMALIZE),
    "cls and mean pooling": (pooled("cls_token", "mean_tokens"),),
    "mean and max pooling, Normalize": (pooled("mean_tokens", "max_tokens"), _NORMALIZE),
    "max, weighted mean, last token pooling": (
        pooled("max_tokens", "weightedmean_tokens", "lasttoken"),
    ),
    "Dense with Identity, no bias": (
        pooled("mean_tokens"), dense(16, _IDENTITY, bias=False), _NORMALIZE,
    ),
    "Dense with ReLU": (pooled("mean_tokens"), dense(48, "torch.nn.modules.activation.ReLU")),
    "Dense with GELU": (pooled("mean_tokens"), dense(48, "torch.nn.modules.activation.GELU")),
    "two Dense": (pooled("cls_token"), dense(64, _IDENTITY), dense(16, in_features=64)),
    "two poolings, Dense": (
        pooled("mean_tokens", "max_tokens"), dense(16, in_features=2 * WIDTH), _NORMALIZE,
    ),
    "a pooling as version 6 writes it": (
        Module("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": "cls"}),
    ),
    "poolings as version 6 writes them": (
        Module("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": ["mean", "lasttoken"]}),
    ),
    "a pooling with no mode on": (pooled(), _NORMALIZE),
    "a pooling that knows two modes only": (
        Module("Pooling", {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}),
    ),
    "modules named as version 6 does": (
        Module(
            "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            {"embedding_dimension": WIDTH, "pooling_mode": "mean", "include_prompt": True},
        ),
        Module("sentence_transformers.base.modules.normalize.Normalize"),
    ),
}  # fmt: skip


def _embedder(family: str, kind: str, modules: tuple[Module, ...], expected: Outcome) -> Case:
    name = f"{family}: {kind}"
    return Case(name=name, holds=kind, family=family, modules=modules, expected=expected)


def family_cases() -> Iterator[Case]:
    """Yield the product of families and pipelines."""
    for kind, modules in _PRODUCT.items():
        yield from (_embedder(family, kind, modules, GRAPH) for family in KNOWN)
    for kind in ("mean pooling, Normalize", "cls pooling"):
        yield from (_embedder(family, kind, _PRODUCT[kind], LIBRARY) for family in SLOW)


def pipeline_cases() -> Iterator[Case]:
    """Yield pipelines for which one or two families suffice."""
    for kind, modules in _SINGLE.items():
        yield _embedder("bert", kind, modules, GRAPH)
    for family in ("roberta", "xlm-roberta"):
        for kind in ("weighted mean pooling", "last token pooling"):
            yield _embedder(family, kind, _SINGLE[kind], GRAPH)
    yield from _odd_pipelines()
    for family in ("bert", "roberta"):
        yield Case(
            name=f"{family}: saved by version 6",
            holds="an embedder as version 6 saves it",
            family=family,
            modules=MEAN,
            edits=(saved_by_version_6,),
            expected=GRAPH,
        )


def _odd_pipelines() -> Iterator[Case]:
    yield _plain("roberta")
    yield _plain("bert")
    yield _embedder("bert", "a LayerNorm behind the pooling", _WITH_LAYER_NORM, GRAPH)
    yield Case(
        name="bert: pooling without the prompt",
        holds="a pooling that leaves the prompt out",
        family="bert",
        modules=(pooled("mean_tokens"),),
        edits=(sets(_POOLING, include_prompt=False), sets(_OWN, prompts={"query": "query: "})),
        expected=refused("prompt"),
    )
    unknown = Module("sentence_transformers.models.Unheard", {"a": 1})
    yield _embedder("bert", "a module of unknown class", (*MEAN, unknown), refused("Unheard"))
    foreign = dense(16, "mine.activation.Own")
    kind = "a Dense whose activation is not torch's (Tanh instead)"
    yield _embedder("bert", kind, (pooled("mean_tokens"), foreign), LIBRARY)


_WITH_LAYER_NORM = (pooled("mean_tokens"), Module("LayerNorm", {"dimension": WIDTH}))


def _plain(family: str) -> Case:
    return Case(
        name=f"{family}: no modules.json",
        holds="no modules.json (mean pooling)",
        family=family,
        modules=None,
        expected=GRAPH,
    )


def static_cases() -> Iterator[Case]:
    """Yield static models: a table of vectors and a mean over tokens, without a transformer."""
    edits: Mapping[str, tuple[Edit, ...]] = {
        "a table of static vectors": (),
        "a table of static vectors, from model2vec": (
            sets("config.json", model_type="model2vec", architectures=["StaticModel"]),
        ),
        "a table of static vectors, no config beside it": (
            removes("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
        ),
    }
    for kind, changes in edits.items():
        yield Case(name=f"static: {kind}", holds=kind, family="static",
                   modules=(_NORMALIZE,), edits=changes, expected=GRAPH)  # fmt: skip
    for tokenizer in ("bpe", "unigram"):
        yield Case(name=f"static: {tokenizer}", holds="a table of static vectors", family="static",
                   tokenizer=tokenizer, expected=GRAPH)  # fmt: skip


def reranker_cases() -> Iterator[Case]:
    """Yield the product of families and activations, and variations of a single classifier."""
    identity = sets("config.json", sbert_ce_default_activation_function=_IDENTITY)
    for family in KNOWN:
        yield _reranker(family, "a classifier of one label", GRAPH)
        yield _reranker(family, "a classifier with Identity", GRAPH, identity)
    for family in ("albert", "modernbert"):
        yield _reranker(family, "a classifier of one label", LIBRARY)
    tanh = "torch.nn.modules.activation.Tanh"
    own = sets(_OWN, model_type="CrossEncoder", activation_fn=_IDENTITY)
    for family in ("bert", "xlm-roberta"):
        yield _reranker(
            family, "a classifier as version 6 saves it", GRAPH, identity, saved_by_version_6
        )
    prompted = sets(_OWN, prompts={"ask": "Is it relevant? "}, default_prompt_name="ask")
    yield _reranker(
        "bert", "a classifier whose pairs take a prompt", LIBRARY, saved_by_version_6, prompted
    )
    yield _reranker("bert", "an activation stated by version 6, no modules.json", GRAPH, own)
    yield _reranker(
        "roberta", "a classifier with Tanh", LIBRARY,
        sets("config.json", sentence_transformers={"activation_fn": tanh, "version": "4.1.0"}),
    )  # fmt: skip
    yield _reranker(
        "bert", "a classifier whose activation is not torch's", refused("mine.Own"),
        sets("config.json", sentence_transformers={"activation_fn": "mine.Own"}),
    )  # fmt: skip
    for family in ("bert", "xlm-roberta"):
        yield _reranker(
            family, "a classifier of two labels", refused("2 labels"),
            sets("config.json", id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1}),
        )  # fmt: skip
    yield _reranker("bert", "a classifier that names its label", GRAPH,
                    sets("config.json", id2label={"0": "relevant"}))  # fmt: skip
    yield _reranker("bert", "a classifier without id2label", refused("label"),
                    drops("config.json", "id2label", "label2id"))  # fmt: skip
    yield _reranker("roberta", "a classifier that keeps the beginning cut off", GRAPH,
                    sets("tokenizer_config.json", truncation_side="left"))  # fmt: skip
    yield _reranker("bert", "a classifier whose tokenizer has no post-processor", GRAPH,
                    sets("tokenizer.json", post_processor=None))  # fmt: skip
    for holds, edit in (
        ("a classifier whose tokenizer class has no token types",
         sets("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")),
        ("a classifier whose model_input_names have no token types",
         sets("tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])),
    ):  # fmt: skip
        yield _reranker("bert", holds, GRAPH, edit)
    yield _reranker("bert", "a classifier that lower-cases", GRAPH,
                    inside("tokenizer.json", "normalizer", lowercase=False))  # fmt: skip


def _reranker(family: str, kind: str, expected: Outcome, *edits: Edit) -> Case:
    return Case(name=f"{family}: {kind}", holds=kind, family=family, classifier=True,
                expected=expected, edits=edits)  # fmt: skip
