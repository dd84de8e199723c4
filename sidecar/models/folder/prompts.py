"""The prompts defined in a model folder."""

from pathlib import Path

from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.folder.files import read_json
from sidecar.models.prompts import Prompts

FILE = "config_sentence_transformers.json"
_MODULES = "modules.json"
# The library always defines these two names, as empty prompts unless the folder sets them.
_ALWAYS: dict[Task, dict[str, str]] = {"embed": {"query": "", "document": ""}, "rerank": {}}


def stated_prompts(folder: Path, task: Task) -> Prompts:
    """Return the prompts of the model in `folder`, which is for `task`, as the library reads them.

    Raises `ModelError`, naming the file, if the prompts do not map names to strings.
    """
    # Without modules.json, the library ignores this file.
    own = read_json(folder, FILE, optional=True) if (folder / _MODULES).is_file() else {}
    stated, default = own.get("prompts", {}), own.get("default_prompt_name")
    if not isinstance(stated, dict) or not all(_is_prompt(text) for text in stated.values()):
        raise ModelError(f"{folder / FILE}: prompts must map names to strings")
    if not isinstance(default, str | None):
        raise ModelError(f"{folder / FILE}: default_prompt_name must be the name of a prompt")
    by_name = {name: text or "" for name, text in stated.items()}
    return Prompts(by_name={**_ALWAYS[task], **by_name}, default_name=default)


def loadable_prompts(folder: Path, task: Task) -> Prompts:
    """Return the same prompts, adding an empty one for a default name that is not defined.

    The library requires the default to exist. Whether such a folder is served is decided
    elsewhere, because a setting may define the prompt.
    """
    prompts = stated_prompts(folder, task)
    if prompts.default_name is None or prompts.default_name in prompts.by_name:
        return prompts
    by_name = {**prompts.by_name, prompts.default_name: ""}
    return Prompts(by_name=by_name, default_name=prompts.default_name)


def _is_prompt(text: object) -> bool:
    return isinstance(text, str | None)
