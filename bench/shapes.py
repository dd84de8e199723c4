"""Models of a shape that cannot be had here, random weights: for size and speed, never quality."""

import json
from pathlib import Path

from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate

SHAPES = ("bert-base", "xlm-roberta-base")
# What transformers wants to know of the tokenizer beside its file.
_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 512,
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def write(shape: str, folder: Path) -> Path:
    """Write the model into `folder` with the default model's tokenizer, whose ids it knows.

    "bert-base" is the shape of e5-base-v2, "xlm-roberta-base" that of bge-reranker-base.
    """
    import transformers  # noqa: PLC0415 - seconds

    transformers.logging.disable_progress_bar()
    tokenizer = json.loads((locate(DEFAULT_EMBEDDING_MODEL) / "tokenizer.json").read_bytes())
    if shape == "bert-base":
        model = transformers.BertModel(transformers.BertConfig())
    else:
        config = transformers.XLMRobertaConfig(
            vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1, num_labels=1
        )
        model = transformers.XLMRobertaForSequenceClassification(config)
        for part in tokenizer["post_processor"]["pair"]:
            (piece,) = part.values()
            piece["type_id"] = 0  # the family has no other
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER), "utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    return folder
