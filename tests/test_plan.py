"""The choice of a quantization."""

from dataclasses import replace

import pytest

from sidecar.host import Host, read_host
from sidecar.plan import PlanError, make_plan


def cuda_host() -> Host:
    return replace(read_host(), cores=8, cuda="Some GPU")


@pytest.mark.parametrize(
    ("use", "configured", "chosen"),
    [
        (True, "int8", "int8"),
        (True, "int4", "int4"),
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


def test_what_this_host_lacks_is_refused() -> None:
    """A quantization that cannot be had is an error that says what can, not another one."""
    with pytest.raises(PlanError, match="use int8, int4, auto or none"):
        make_plan(use_quantization=True, quantization="fp16", threads=0, host=read_host())


def test_threads_follow_the_host_unless_set() -> None:
    """Zero threads means the cores that the host grants."""
    host = read_host()
    common = {"use_quantization": True, "quantization": "int8", "host": host}
    assert make_plan(threads=0, **common).threads == host.cores
    assert make_plan(threads=5, **common).threads == 5


@pytest.mark.parametrize(
    ("use", "configured", "chosen"),
    [
        (True, "int8", "fp16"),
        (True, "fp16", "fp16"),
        (True, "auto", "fp16"),
        (True, "none", "none"),
        (False, "int8", "none"),
    ],
)
def test_a_cuda_device_takes_fp16(use: bool, configured: str, chosen: str) -> None:
    """Where there is a device it computes, in FP16 unless nothing is to be quantized."""
    plan = make_plan(use_quantization=use, quantization=configured, threads=0, host=cuda_host())
    assert (plan.device, plan.quantization) == ("cuda", chosen)
    assert "QUANTIZATION" in plan.reason


def test_the_device_can_be_set() -> None:
    """On a host with a CUDA device the CPU serves where it is told to, in what a CPU has."""
    common = {"use_quantization": True, "threads": 0, "host": cuda_host()}
    plan = make_plan(device="cpu", quantization="int8", **common)
    assert (plan.device, plan.quantization) == ("cpu", "int8")
    assert make_plan(device="cuda", quantization="int8", **common).device == "cuda"
    with pytest.raises(PlanError, match="fp16 needs a CUDA device"):
        make_plan(device="cpu", quantization="fp16", **common)


def test_no_device_is_an_error_where_one_is_asked_for() -> None:
    """A CPU host says what SIDECAR_DEVICE=cuda lacks, and does not serve slowly instead."""
    with pytest.raises(PlanError, match="NVIDIA driver and a CUDA build of torch"):
        make_plan(
            use_quantization=True, quantization="int8", threads=0, host=read_host(), device="cuda"
        )


def test_a_cuda_device_needs_one_thread() -> None:
    """The threads' work is to keep the device busy; more are for whoever sets them."""
    common = {"use_quantization": True, "quantization": "fp16", "host": cuda_host()}
    assert make_plan(threads=0, **common).threads == 1
    assert make_plan(threads=2, **common).threads == 2


def test_int4_is_not_for_cuda() -> None:
    """What a device does not have is refused with what it has."""
    with pytest.raises(PlanError, match="not available on a CUDA device; use fp16"):
        make_plan(use_quantization=True, quantization="int4", threads=0, host=cuda_host())
