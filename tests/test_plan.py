"""The choice of quantization, threads and device."""

from dataclasses import replace

import pytest

from sidecar.host import Host, read_host
from sidecar.plan import PORTABLE_WEIGHT_BITS, PlanError, make_plan, weight_bits


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
    """The plan has the configured quantization, with a reason that names the setting."""
    plan = make_plan(use_quantization=use, quantization=configured, threads=0, host=read_host())
    assert plan.quantization == chosen
    assert "QUANTIZATION" in plan.reason


def test_what_this_host_lacks_is_refused() -> None:
    """A quantization that the host does not support raises an error that lists those it does."""
    with pytest.raises(PlanError, match="use int8, int4, auto or none"):
        make_plan(use_quantization=True, quantization="fp16", threads=0, host=read_host())


def test_threads_follow_the_host_unless_set() -> None:
    """Zero threads means all available cores."""
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
    """On a CUDA device, the plan is FP16 unless quantization is off."""
    plan = make_plan(use_quantization=use, quantization=configured, threads=0, host=cuda_host())
    assert (plan.device, plan.quantization) == ("cuda", chosen)
    assert "QUANTIZATION" in plan.reason


def test_the_device_can_be_set() -> None:
    """On a CUDA host, the device can be set to the CPU, with the CPU's quantizations."""
    common = {"use_quantization": True, "threads": 0, "host": cuda_host()}
    plan = make_plan(device="cpu", quantization="int8", **common)
    assert (plan.device, plan.quantization) == ("cpu", "int8")
    assert make_plan(device="cuda", quantization="int8", **common).device == "cuda"
    with pytest.raises(PlanError, match="fp16 needs a CUDA device"):
        make_plan(device="cpu", quantization="fp16", **common)


def test_no_device_is_an_error_where_one_is_asked_for() -> None:
    """Without a CUDA device, SIDECAR_DEVICE=cuda is an error that says what is missing."""
    with pytest.raises(PlanError, match="NVIDIA driver and a CUDA build of torch"):
        make_plan(
            use_quantization=True, quantization="int8", threads=0, host=read_host(), device="cuda"
        )


def test_a_cuda_device_needs_one_thread() -> None:
    """On CUDA, one thread is the default, as it keeps the device busy; more can be set."""
    common = {"use_quantization": True, "quantization": "fp16", "host": cuda_host()}
    assert make_plan(threads=0, **common).threads == 1
    assert make_plan(threads=2, **common).threads == 2


def test_int4_is_not_for_cuda() -> None:
    """On CUDA, int4 is an error that lists the supported quantizations."""
    with pytest.raises(PlanError, match="not available on a CUDA device; use fp16"):
        make_plan(use_quantization=True, quantization="int4", threads=0, host=cuda_host())


def test_weights_have_the_bits_that_the_processor_bears() -> None:
    """Weights have 8 bits with any 32-bit dot-product instruction, otherwise 7."""
    host = replace(read_host(), cuda=None)
    common = {"use_quantization": True, "quantization": "int8", "threads": 0}
    for flag in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"):
        able = replace(host, isa=frozenset({"avx2", flag}))
        assert weight_bits(able) == make_plan(host=able, **common).weight_bits == 8, flag
    for flags in ((), ("avx2",), ("avx2", "avx512f")):
        unable = replace(host, isa=frozenset(flags))
        assert weight_bits(unable) == make_plan(host=unable, **common).weight_bits == 7, flags
    assert PORTABLE_WEIGHT_BITS == 7


def test_a_reason_names_the_setting_that_decided() -> None:
    """The reason names the deciding setting and its value, and on CUDA what it results in."""
    host = replace(read_host(), cuda=None)
    for use, configured, device, reason in (
        (False, "int8", "cpu", "USE_QUANTIZATION is false"),
        (False, "none", "cpu", "USE_QUANTIZATION is false"),
        (True, "none", "cpu", "QUANTIZATION_CONFIG is none"),
        (True, "int4", "cpu", "QUANTIZATION_CONFIG is int4"),
        (True, "none", "cuda", "QUANTIZATION_CONFIG is none"),
        (True, "fp16", "cuda", "QUANTIZATION_CONFIG is fp16"),
        (True, "auto", "cuda", "QUANTIZATION_CONFIG is auto, which on a CUDA device means fp16"),
    ):
        plan = make_plan(
            use_quantization=use, quantization=configured, threads=0,
            host=replace(host, cuda="Some GPU"), device=device,
        )  # fmt: skip
        assert plan.reason == reason


def test_a_host_without_a_device_computes_on_its_cores() -> None:
    """Without a CUDA device, `auto` and `cpu` both compute on all cores."""
    host = replace(read_host(), cores=6, cuda=None)
    common = {"use_quantization": True, "quantization": "int8", "threads": 0, "host": host}
    for device in ("auto", "cpu"):
        plan = make_plan(device=device, **common)
        assert (plan.device, plan.threads, plan.quantization) == ("cpu", 6, "int8")
