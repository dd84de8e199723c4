"""What is to be prepared. A leaf: whoever only orders holds nothing of what prepares."""

from dataclasses import dataclass
from pathlib import Path

from sidecar.models.precision import Precision
from sidecar.models.rows import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest:
    """What to prepare: the model in `folder`, called `name`, into the artifact `output`.

    `texts` are calibrated on, or the built-in ones where there are none.
    """

    folder: Path
    name: str
    precision: Precision
    output: Path
    texts: tuple[Text, ...] = ()
