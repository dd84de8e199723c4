"""Ask sentence-transformers about a folder, in a separate process.

`python -m sidecar.models.oracle.library PARENT FOLDER TASK OUTPUT` writes the answers and the
tokenizer that the library made into the folder OUTPUT, or why it cannot load the model.
"""

import sys
from contextlib import suppress
from pathlib import Path

from sidecar.models.child import end_with_parent
from sidecar.models.description import Task
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.tokenizer import from_library
from sidecar.models.oracle import answers
from sidecar.models.oracle.answers import ANSWERS, FAILURE, TOKENIZER
from sidecar.models.oracle.pipeline import answers_of
from sidecar.models.torch_pipeline import Source, load_pipeline


def ask(source: Source, output: Path, *, about: str = "") -> None:
    """Write the library's answers about `source` into `output`; for `about` see `answers.write`.

    Raises `ModelError` if it cannot load the model.
    """
    pipeline = load_pipeline(source)
    with suppress(UnknownArchitectureError):  # then our own is compared
        tokenizer = from_library(pipeline.tokenizer, pipeline.max_seq_length)
        (output / TOKENIZER).write_text(tokenizer, "utf-8")
    found = answers_of(pipeline, source.task)
    answers.write(output / ANSWERS, found, about=about)


def answer(folder: str, task: Task, output: str) -> int:
    """Write the library's answers, or why there are none; return the exit code."""
    try:
        ask(Source(Path(folder), Path(folder).name, task), Path(output))
    except ModelError as error:
        failure = str(error)
    except Exception as error:  # noqa: BLE001 - whatever a model's own code raises
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
    else:
        return 0
    (Path(output) / FAILURE).write_text(failure, "utf-8")
    return 1


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    sys.exit(answer(*sys.argv[2:]))  # type: ignore[arg-type]
