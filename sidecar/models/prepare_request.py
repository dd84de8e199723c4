"""A request to prepare a model. A leaf: requesting does not import what prepares."""

from dataclasses import dataclass
from pathlib import Path

from sidecar.models.precision import Precision
from sidecar.models.rows import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest:
    """What to prepare: the model in `folder`, called `name`, into the artifact `output`.

    `texts` are used for calibration; if there are none, the built-in ones are.
    """

    folder: Path
    name: str
    precision: Precision
    output: Path
    texts: tuple[Text, ...] = ()
