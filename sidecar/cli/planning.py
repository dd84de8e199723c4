"""What the commands read of this host, and the plan that follows from it and the settings."""

from sidecar.config import Config
from sidecar.host import Host, cuda_device, read_host
from sidecar.plan import Plan, make_plan


def host_and_plan(config: Config) -> tuple[Host, Plan]:
    """Return this host's facts and the plan for it. Raises `PlanError`.

    Nobody looks for a CUDA device where it would not be used: that imports torch.
    """
    host = read_host(probe=None if config.device == "cpu" else cuda_device)
    plan = make_plan(
        use_quantization=config.use_quantization,
        quantization=config.quantization,
        threads=config.threads,
        host=host,
        device=config.device,
    )
    return host, plan
