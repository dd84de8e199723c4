"""What is read from a model's folder, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.encoder.architecture import Pooling
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.describe import describe, task_of
from sidecar.models.folder.weights import read_encoder

MakeModel = Callable[..., Path]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_embedded_model_is_described(minilm_folder: Path) -> None:
    """The pooling, normalisation and limit of the packaged model are read from its files."""
    description = describe(minilm_folder)
    assert description.task == "embed"
    assert description.pooling == (Pooling.MEAN,)
    assert description.normalize
    assert description.max_tokens == 256
    assert description.prompts == {"query": "", "document": ""}
    assert description.similarity_fn_name == "cosine"


def test_layout_of_version_6_reads_the_same(minilm_folder: Path, tmp_path: Path) -> None:
    """A folder that sentence-transformers 6 wrote describes the same model."""
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(minilm_folder), device="cpu").save(str(tmp_path))
    assert describe(tmp_path) == describe(minilm_folder)


def test_prompts_are_read(make_model: MakeModel) -> None:
    """Prompts are read along with the default's name; `query` and `document` always exist."""
    folder = make_model()
    prompts = {"query": "query: ", "passage": "passage: "}
    own = {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(own))
    description = describe(folder)
    assert description.prompts == {**prompts, "document": ""}
    assert description.default_prompt_name == "query"
    assert description.similarity_fn_name == "dot"


def test_plain_transformers_folder_is_a_mean_embedder(make_model: MakeModel) -> None:
    """A folder without sentence-transformers' files is pooled by mean, as in the library."""
    folder = make_model()
    (folder / "modules.json").unlink()
    description = describe(folder)
    assert (description.pooling, description.normalize) == ((Pooling.MEAN,), False)


def test_score_activation_is_the_librarys(make_model: MakeModel) -> None:
    """A cross-encoder's score activation is the one that its folder states, or else the sigmoid.

    Of the three places that can state it, the same one counts as in the library.
    """
    import torch
    from sentence_transformers import CrossEncoder

    folder = make_model(classifier=True)
    own, modules = folder / "config_sentence_transformers.json", folder / "modules.json"
    transformer = {"name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    sigmoid, identity = "torch.nn.modules.activation.Sigmoid", "torch.nn.Identity"
    for newest, newer, oldest in (
        ({}, {}, None),
        ({}, {}, identity),
        ({}, {"activation_fn": sigmoid}, identity),
        ({}, {"activation_fn": None}, identity),
        ({}, {"other": 1}, identity),
        ({"activation_fn": identity}, {"activation_fn": sigmoid}, None),
        ({"activation_fn": None}, {"activation_fn": identity}, None),
        (None, {"activation_fn": identity}, None),
    ):
        # Without modules.json the newest place is ignored.
        modules.write_text(json.dumps([transformer]))
        own.write_text(json.dumps({"model_type": "CrossEncoder", **(newest or {})}))
        if newest is None:
            own.write_text(json.dumps({"model_type": "CrossEncoder", "activation_fn": sigmoid}))
            modules.unlink()
        edit(
            folder / "config.json",
            sentence_transformers=newer,
            sbert_ce_default_activation_function=oldest,
        )
        library = CrossEncoder(str(folder), device="cpu").activation_fn
        expected = {torch.nn.Sigmoid: "sigmoid", torch.nn.Identity: "identity"}[type(library)]
        assert describe(folder).activation == expected, (newest, newer, oldest)


def test_other_score_activations_are_not_ours(make_model: MakeModel) -> None:
    """Any other score activation is left to the library, and so is one that it would not run."""
    folder = make_model(classifier=True)
    for stated in ("torch.nn.Tanh", "my.own.Identity", "torch.nn.functional.Sigmoid"):
        edit(folder / "config.json", sentence_transformers={"activation_fn": stated})
        with pytest.raises(UnknownArchitectureError, match=stated):
            describe(folder)


def test_score_activation_of_version_6_is_read(make_model: MakeModel, tmp_path: Path) -> None:
    """A score activation is read from the file that version 6 of the library writes it to."""
    import torch
    from sentence_transformers import CrossEncoder

    folder = make_model(classifier=True)
    encoder = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    encoder.save(str(tmp_path))
    assert describe(tmp_path).activation == "identity"


def test_task_is_what_the_library_noted(make_model: MakeModel) -> None:
    """A classifier is a reranker and anything else an embedder, unless the folder states it."""
    embedder, reranker = make_model(), make_model(classifier=True)
    assert (task_of(embedder), task_of(reranker)) == ("embed", "rerank")
    (embedder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    assert task_of(embedder) == "rerank"
    with pytest.raises(UnknownArchitectureError, match="not a plain classifier"):
        describe(embedder)


def test_unknown_family_lists_the_known(make_model: MakeModel) -> None:
    """An unknown model_type is refused with a list of the known families."""
    folder = make_model()
    edit(folder / "config.json", model_type="gpt2")
    with pytest.raises(ModelError, match=r"family 'gpt2'; supported families: bert, camembert"):
        describe(folder)


def test_unknown_module_is_refused(make_model: MakeModel) -> None:
    """A folder with a module that no graph here computes is not served without that module."""
    for kind in ("sentence_transformers.models.CNN", "my.own.Dense"):
        folder = make_model()
        modules = json.loads((folder / "modules.json").read_text())
        modules.append({"idx": 3, "name": "3", "path": "3", "type": kind})
        (folder / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(UnknownArchitectureError, match=kind.rpartition(".")[2]):
            describe(folder)


def test_unknown_pooling_is_refused(make_model: MakeModel) -> None:
    """An unknown pooling mode is named, and so is pooling that leaves out the prompt."""
    for change in ({"pooling_mode": "median"}, {"include_prompt": False}):
        folder = make_model()
        edit(folder / "1_Pooling" / "config.json", **change)
        with pytest.raises(UnknownArchitectureError, match=r"median|include_prompt"):
            describe(folder)


def test_many_labels_are_no_reranker(make_model: MakeModel) -> None:
    """A classifier with more than one label is refused as a reranker."""
    folder = make_model(classifier=True)
    edit(folder / "config.json", id2label={"0": "a", "1": "b", "2": "c"})
    with pytest.raises(ModelError, match="3 labels"):
        describe(folder)
    edit(folder / "config.json", id2label=None)  # the library assumes two
    with pytest.raises(ModelError, match="2 labels"):
        describe(folder)


def test_missing_files_are_named(tmp_path: Path, make_model: MakeModel) -> None:
    """A folder without a config, weights or a tensor is refused, naming what is missing."""
    with pytest.raises(ModelError, match=r"has no config\.json"):
        describe(tmp_path)
    folder = make_model()
    description = describe(folder)
    edit(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(UnknownArchitectureError, match=r"layer\.2\.attention"):
        read_encoder(folder, description)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights"):
        read_encoder(folder, description)


def test_damaged_json_is_named(make_model: MakeModel) -> None:
    """A file that is not valid JSON is named."""
    folder = make_model()
    (folder / "modules.json").write_text("{")
    with pytest.raises(ModelError, match=r"modules\.json is not valid JSON"):
        describe(folder)


def test_half_precision_weights_are_read_as_float32(make_model: MakeModel) -> None:
    """A float16 checkpoint is read as float32 arrays of the same values."""
    from safetensors.numpy import load_file, save_file

    folder = make_model()
    path = folder / "model.safetensors"
    halves = {name: tensor.astype("float16") for name, tensor in load_file(path).items()}
    save_file(halves, path)
    encoder = read_encoder(folder, describe(folder))
    assert encoder.embeddings.word.dtype == "float32"
    assert (encoder.embeddings.word == halves["embeddings.word_embeddings.weight"]).all()


def test_a_list_of_modules_without_a_note_is_an_embedders(make_model: MakeModel) -> None:
    """A classifier whose folder states no type is an embedder if it has a modules.json."""
    folder = make_model()
    edit(folder / "config.json", architectures=["BertForSequenceClassification"])
    assert task_of(folder) == describe(folder).task == "embed"
    (folder / "modules.json").unlink()
    assert task_of(folder) == "rerank"
