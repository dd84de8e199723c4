"""What tests of models share: small artifacts, and less work to prepare one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ..preparing import prepare_quickly, quicken


@pytest.fixture(autouse=True)
def quick_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spend less on tiny models, where a test calls `prepare` itself, too."""
    quicken(monkeypatch)


@pytest.fixture(scope="session")
def cuda() -> str:
    """The device's name for torch, where this host has one."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that torch may compute on."""
    return request.param if request.param == "cpu" else request.getfixturevalue("cuda")


@pytest.fixture(scope="session")
def tiny_artifact(
    make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small BERT in INT8 with weights of 7 bits, unproven; a test copies what it changes."""
    from sidecar.models.oracle import ask
    from sidecar.models.precision import Precision
    from sidecar.models.prepare_request import PrepareRequest

    output = tmp_path_factory.mktemp("tiny") / "tiny-int8"
    precision = Precision("int8", weight_bits=7, floor=0)
    order = PrepareRequest(folder=make_model(), name="tiny", precision=precision, output=output)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ask, "has_library", lambda: False)
        prepare_quickly(order)
    return output
