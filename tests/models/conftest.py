"""Fixtures for tests of models: small artifacts, and cheaper preparation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ..preparing import prepare_quickly, quicken


@pytest.fixture(autouse=True)
def quick_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make preparing tiny models cheaper, also for tests that call `prepare` themselves."""
    quicken(monkeypatch)


@pytest.fixture(scope="session")
def cuda() -> str:
    """Return torch's name for the CUDA device; skip the test if this host has none."""
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
    """A small BERT in INT8 with 7-bit weights, unverified; a test copies it before changing it."""
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
