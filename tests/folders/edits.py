"""Modifications of a folder, as seen on the hub, to be combined by cases."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .case import Edit
from .vocabularies import dump

Tensors: TypeAlias = dict[str, Any]


def sets(file: str, **values: Any) -> Edit:
    """Set keys of a JSON file, creating it if necessary."""

    def edit(folder: Path) -> None:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        dump(path, {**content, **values})

    return edit


def drops(file: str, *keys: str) -> Edit:
    """Remove keys from a JSON file."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text("utf-8"))
        dump(folder / file, {key: content[key] for key in content if key not in keys})

    return edit


def inside(file: str, part: str, **values: Any) -> Edit:
    """Set keys of the object `part` in a JSON file."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text("utf-8"))
        dump(folder / file, {**content, part: {**(content[part] or {}), **values}})

    return edit


def removes(*names: str) -> Edit:
    """Remove files."""

    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


def renames(old: str, new: str) -> Edit:
    """Rename a file."""

    def edit(folder: Path) -> None:
        (folder / old).rename(folder / new)

    return edit


def writes(name: str, content: str) -> Edit:
    """Write a text file."""

    def edit(folder: Path) -> None:
        (folder / name).write_text(content, "utf-8")

    return edit


def tokens_outside(*tokens: str, special: bool = False, **flags: Any) -> Edit:
    """Add tokens to tokenizer_config.json that tokenizer.json lacks."""
    defaults = {"lstrip": False, "rstrip": False, "normalized": not special, "single_word": False}

    def edit(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        content = json.loads(path.read_text("utf-8"))
        listed = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
        known = {str(each.pop("id")): each for each in listed}
        first = len(_vocabulary(folder))
        added = {
            str(first + index): {"content": token, "special": special, **defaults, **flags}
            for index, token in enumerate(tokens)
        }
        dump(path, {**content, "added_tokens_decoder": {**known, **added}})

    return edit


def _vocabulary(folder: Path) -> Any:
    return json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]


def shortens_vocabulary(by: int) -> Edit:
    """Remove the last `by` words of the vocabulary, to free table rows for added tokens."""

    def edit(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text("utf-8"))
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, list):
            content["model"]["vocab"] = vocabulary[:-by]
        else:
            limit = len(vocabulary) - by
            kept = {token: index for token, index in vocabulary.items() if index < limit}
            content["model"]["vocab"] = kept
            merges = content["model"].get("merges") or []
            content["model"]["merges"] = [m for m in merges if "".join(m) in kept]
            if not merges:
                del content["model"]["merges"]
        dump(path, content)

    return edit


def tensors(change: Callable[[Tensors], Mapping[str, Any]]) -> Edit:
    """Change the tensors of model.safetensors."""

    def edit(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / "model.safetensors"
        changed = {name: each.contiguous() for name, each in change(load_file(path)).items()}
        save_file(changed, path, {"format": "pt"})

    return edit


def as_type(name: str) -> Edit:
    """Store every tensor in the torch dtype `name`, and state it in config.json."""

    def edit(folder: Path) -> None:
        import torch

        wanted = getattr(torch, name)
        tensors(lambda all_: {key: each.to(wanted) for key, each in all_.items()})(folder)
        if (folder / "config.json").is_file():
            sets("config.json", dtype=name)(folder)

    return edit


def named(rename: Callable[[str], str]) -> Edit:
    """Rename tensors."""
    return tensors(lambda all_: {rename(name): each for name, each in all_.items()})


def without(*parts: str) -> Edit:
    """Remove the tensors whose names contain one of `parts`."""
    return tensors(
        lambda all_: {
            name: each for name, each in all_.items() if not any(part in name for part in parts)
        }
    )


def with_more(**shapes: tuple[int, ...]) -> Edit:
    """Add tensors of ones; "__" in a name stands for a dot."""

    def change(all_: Tensors) -> Tensors:
        import torch

        more = {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}
        return {**all_, **more}

    return tensors(change)


def as_bin(folder: Path) -> None:
    """Store the weights as a torch pickle."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def in_shards(folder: Path) -> None:
    """Store the weights in two safetensors shards and an index."""
    from safetensors.torch import load_file, save_file

    whole = load_file(folder / "model.safetensors")
    names = sorted(whole)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, half in zip(files, halves, strict=True):
        save_file({name: whole[name] for name in half}, folder / file, {"format": "pt"})
    size = sum(each.nbytes for each in whole.values())
    placed = {n: file for file, half in zip(files, halves, strict=True) for n in half}
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    dump(folder / "model.safetensors.index.json", index)
    (folder / "model.safetensors").unlink()


def bin_in_shards(folder: Path) -> None:
    """Store the weights in two pickled shards and an index."""
    import torch
    from safetensors.torch import load_file

    in_shards(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
    for file in sorted(set(index["weight_map"].values())):
        torch.save(load_file(folder / file), folder / _pickle(file))
        (folder / file).unlink()
    index["weight_map"] = {name: _pickle(file) for name, file in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").unlink()
    dump(folder / "pytorch_model.bin.index.json", index)


def _pickle(file: str) -> str:
    return file.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")


def cuts_weights(folder: Path) -> None:
    """Truncate model.safetensors to half its size, like an interrupted download."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def saved_by_version_6(folder: Path) -> None:
    """Re-save the folder with the current library."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    # Here, only classifiers lack modules.json.
    kind = SentenceTransformer if (folder / "modules.json").is_file() else CrossEncoder
    kind(str(folder), device="cpu", local_files_only=True).save_pretrained(str(folder))


def into_transformer_folder(name: str) -> Edit:
    """Move the transformer's files into a subfolder `name`, as older versions did."""

    def edit(folder: Path) -> None:
        stays = {"modules.json", "config_sentence_transformers.json"}
        (folder / name).mkdir()
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in stays:
                path.rename(folder / name / path.name)
        listed = json.loads((folder / "modules.json").read_text("utf-8"))
        listed[0]["path"] = name
        dump(folder / "modules.json", listed)

    return edit


def drops_last_module(folder: Path) -> None:
    """Remove the last module from the pipeline."""
    path = folder / "modules.json"
    dump(path, json.loads(path.read_text("utf-8"))[:-1])
