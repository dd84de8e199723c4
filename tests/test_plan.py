"""The choice of a quantization."""

import pytest

from sidecar.host import read_host
from sidecar.plan import PlanError, make_plan


@pytest.mark.parametrize(
    ("use", "configured", "chosen"),
    [
        (True, "int8", "int8"),
        (True, "auto", "auto"),
        (True, "none", "none"),
        (False, "int8", "none"),
        (False, "int4", "none"),
    ],
)
def test_choice_follows_the_configuration(use: bool, configured: str, chosen: str) -> None:
    """What is configured is what is planned, with a reason in the setting's own name."""
    plan = make_plan(use_quantization=use, quantization=configured, threads=0, host=read_host())
    assert plan.quantization == chosen
    assert "QUANTIZATION" in plan.reason


@pytest.mark.parametrize("configured", ["int4", "fp16"])
def test_what_this_version_lacks_is_refused(configured: str) -> None:
    """A quantization that cannot be had is an error that says what can, not another one."""
    with pytest.raises(PlanError, match="use int8, auto or none"):
        make_plan(use_quantization=True, quantization=configured, threads=0, host=read_host())


def test_threads_follow_the_host_unless_set() -> None:
    """Zero threads means the cores that the host grants."""
    host = read_host()
    common = {"use_quantization": True, "quantization": "int8", "host": host}
    assert make_plan(threads=0, **common).threads == host.cores
    assert make_plan(threads=5, **common).threads == 5
