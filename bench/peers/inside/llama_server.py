"""llama.cpp's server of a BERT: FOLDER, FILE to write, MAX_TOKENS, SLOTS, THREADS, PORT."""

import json
import signal
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from safetensors.numpy import load_file

_WORD_START = "\u2581"  # of a word's first piece; BERT marks the others instead
_TABLES = ("position_embd", "token_types")  # small, and added rather than multiplied
_CONNECTIONS = 128  # each that stays open takes a thread of its own
_UBATCH_TEXTS = 8  # of the longest, that are computed together
_SPECIALS = {
    "[CLS]": GGUFWriter.add_bos_token_id,
    "[SEP]": GGUFWriter.add_sep_token_id,
    "[UNK]": GGUFWriter.add_unk_token_id,
    "[PAD]": GGUFWriter.add_pad_token_id,
    "[MASK]": GGUFWriter.add_mask_token_id,
}


def write(folder: Path, file: Path) -> None:
    """Write the model in `folder` as GGUF, its matrices in 8 bits."""
    writer = GGUFWriter(file, "bert")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    _write_shape(writer, config)
    _write_words(writer, (folder / "vocab.txt").read_text("utf-8").splitlines())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for key, tensor in load_file(folder / "model.safetensors").items():
        name = names.get_name(key.removeprefix("bert."), try_suffixes=(".weight", ".bias"))
        if name is not None:  # the pooler's are not used
            _write_tensor(writer, name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: GGUFWriter, config: dict) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _write_words(writer: GGUFWriter, words: list[str]) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_piece(word) for word in words])
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[_is_special(word)] for word in words])
    for word, add in _SPECIALS.items():
        add(writer, words.index(word))


def _is_special(word: str) -> bool:
    return word.startswith("[") and word.endswith("]")


def _piece(word: str) -> str:
    if _is_special(word):
        return word
    return word[2:] if word.startswith("##") else _WORD_START + word


def _write_tensor(writer: GGUFWriter, name: str, tensor: np.ndarray) -> None:
    if tensor.ndim == 1 or name.startswith(_TABLES):
        writer.add_tensor(name, tensor)
    else:
        packed = gguf.quants.quantize(tensor, Type.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=Type.Q8_0)


def serve(file: Path, max_tokens: int, slots: int, threads: int, port: int) -> None:
    """Serve until a signal ends the process."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.embedding = True
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_threads_http = _CONNECTIONS
    params.n_parallel, params.n_ctx = slots, slots * max_tokens
    params.n_batch = params.n_ubatch = _UBATCH_TEXTS * max_tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


def main(folder: str, file: str, *numbers: str) -> None:
    write(Path(folder), Path(file))
    serve(Path(file), *map(int, numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
