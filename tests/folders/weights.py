"""Cases about weight storage, and missing, unusual or extra tensors."""

from collections.abc import Iterator, Mapping

from .case import GRAPH, Case, Edit, Outcome, refused
from .edits import (
    as_bin,
    as_type,
    bin_in_shards,
    cuts_weights,
    in_shards,
    into_transformer_folder,
    named,
    removes,
    sets,
    tensors,
    with_more,
    without,
    writes,
)
from .generator import WIDTH
from .pipelines import MEAN

_STORED: Mapping[str, tuple[Edit, ...]] = {
    "BF16 weights": (as_type("bfloat16"),),
    "F16 weights": (as_type("float16"),),
    "pytorch_model.bin": (as_bin,),
    "shards": (in_shards,),
    "pytorch_model.bin in shards": (bin_in_shards,),
    "the transformer in 0_Transformer/": (into_transformer_folder("0_Transformer"),),
}
_PREFIXES = {"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta.",
             "mpnet": "mpnet.", "distilbert": "distilbert."}  # fmt: skip
_LAYER = "encoder.layer.1."


def _old_norms(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )


_SINGLE: Mapping[str, tuple[tuple[Edit, ...], Outcome]] = {
    "LayerNorm.gamma and beta": ((named(_old_norms),), GRAPH),
    "F64 weights": ((as_type("float64"), sets("config.json", dtype="float32")), GRAPH),
    "no pooler": ((without("pooler"),), GRAPH),
    "a language model's head": (
        (
            named(lambda name: f"bert.{name}"),
            without("pooler"),
            with_more(
                cls__predictions__bias=(600,), cls__predictions__transform__dense__bias=(WIDTH,)
            ),
        ),
        GRAPH,
    ),
    "position_ids beside the weights": (
        (with_more(embeddings__position_ids=(1, 66)),),
        GRAPH,
    ),
    "safetensors beside a pytorch_model.bin that is not read": (
        (writes("pytorch_model.bin", "not a pickle"),),
        GRAPH,
    ),
    "a tensor that is missing": (
        (without(f"{_LAYER}output.dense.weight"),),
        refused("output.dense.weight"),
    ),
    "a bias that is missing": (
        (without(f"{_LAYER}attention.self.query.bias"),),
        refused("attention.self.query.bias"),
    ),
    "a layer more than config.json states": (
        (sets("config.json", num_hidden_layers=1),),
        refused("encoder.layer.1"),
    ),
    "a layer less than config.json states": (
        (sets("config.json", num_hidden_layers=3),),
        refused("encoder.layer.2"),
    ),
    "weights with NaN": (
        (tensors(lambda all_: {name: _nan(name, each) for name, each in all_.items()}),),
        refused("NaN"),
    ),
    "a shape that does not fit config.json": (
        (sets("config.json", intermediate_size=128),),
        refused("shape"),
    ),
    "weights that are cut short": ((cuts_weights,), refused("model.safetensors")),
    "weights that are no pickle": (
        (removes("model.safetensors"), writes("pytorch_model.bin", "not a pickle")),
        refused("pytorch_model.bin"),
    ),
    "no weights": ((removes("model.safetensors"),), refused("model.safetensors")),
}


def _nan(name: str, tensor: object) -> object:
    if name == f"{_LAYER}output.dense.weight":
        tensor[3, 5] = float("nan")
    return tensor


def weight_cases() -> Iterator[Case]:
    """Yield the product of families and storage formats."""
    for family in ("bert", "roberta", "xlm-roberta", "distilbert"):
        for holds, edits in _STORED.items():
            yield _case(family, holds, edits, GRAPH)
    for family, prefix in _PREFIXES.items():
        edits = (named(lambda name, prefix=prefix: prefix + name),)
        yield _case(family, "tensors with the prefix of the whole model", edits, GRAPH)
    for holds in ("BF16 weights", "pytorch_model.bin", "shards"):
        yield Case(name=f"bert reranker: {holds}", holds=holds, family="bert", classifier=True,
                   edits=_STORED[holds], expected=GRAPH)  # fmt: skip
        if holds != "shards":
            yield Case(name=f"static: {holds}", holds=holds, family="static", modules=MEAN[1:],
                       edits=_STORED[holds], expected=GRAPH)  # fmt: skip


def tensor_cases() -> Iterator[Case]:
    """Yield tensors with old names, and missing, invalid or extra tensors."""
    for holds, (edits, expected) in _SINGLE.items():
        yield _case("bert", holds, edits, expected)
    yield Case(name="bert reranker: no output layer", holds="a classifier without its last layer",
               family="bert", classifier=True, edits=(without("classifier"),),
               expected=refused("classifier"))  # fmt: skip


def _case(family: str, holds: str, edits: tuple[Edit, ...], expected: Outcome) -> Case:
    return Case(name=f"{family}: {holds}", holds=holds, family=family, modules=MEAN,
                edits=edits, expected=expected)  # fmt: skip
