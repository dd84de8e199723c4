"""`sidecar serve`: run the daemon."""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from client_lib.wire.protocol import Limits
from sidecar import events, systemd
from sidecar.cli.planning import host_and_plan, precision
from sidecar.cli.settings import add_flags, settings_of
from sidecar.cli.target import target
from sidecar.config import Config, to_config
from sidecar.events import Selection
from sidecar.host import Host
from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, open_model
from sidecar.plan import Plan
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.process import lifecycle
from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.settings import ServeSettings, Setup


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("serve", help="run the daemon until SIGTERM")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; return the exit code of the lifecycle."""
    configure = partial(_setup, arguments)
    setup = configure()
    events.configure(target(setup.settings.log_target), setup.settings.selection)
    # The tokenizer's threads would compete with the daemon's own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return lifecycle.run(setup, configure, systemd.take())


def _setup(arguments: argparse.Namespace) -> Setup:
    """Read the configuration from the flags, the environment and the file, which may have changed.

    Raises `ConfigError` or `PlanError`.
    """
    config = to_config(settings_of(arguments))
    host, plan = host_and_plan(config)
    return Setup(
        load=_loader(config, plan),
        settings=_serve_settings(config, plan, host),
        configured=asdict(config),
    )


def _loader(config: Config, plan: Plan) -> Callable[[], list[ServedModel]]:
    wanted = [
        Wanted(
            name=name,
            task=task,
            precision=precision(config, plan),
            reason=plan.reason,
            device=plan.device,
            threads=plan.threads,
            max_tokens=config.max_tokens,
            prompts=config.prompts,
        )
        for name, task in _models(config)
    ]

    def load() -> list[ServedModel]:
        models: list[ServedModel] = [open_model(each, config.cache_dir) for each in wanted]
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ModelError(f"two models are named {names[0]}: rename one folder")
        return models

    return load


def _models(config: Config) -> list[tuple[str, Task]]:
    models: list[tuple[str, Task]] = [(config.embedding_model, "embed")]
    if config.reranker_model is not None:
        models.append((config.reranker_model, "rerank"))
    return models


def _serve_settings(config: Config, plan: Plan, host: Host) -> ServeSettings:
    return ServeSettings(
        socket=config.socket,
        threads=plan.threads,
        limits=Limits(config.max_frame_bytes, config.max_inputs, config.max_text_bytes),
        bounds=QueueLimits(
            rows=config.max_queue_rows,
            tokens=config.max_queue_tokens,
            bytes=config.max_queue_bytes,
            peer_share=config.max_peer_share,
        ),
        cache_bytes=config.cache_bytes,
        memory_bytes=config.max_memory_bytes or host.memory_bytes,
        access=AccessPolicy(
            uids=config.allow_users,
            gids=config.allow_groups,
            max_connections=config.max_connections,
            stall_seconds=config.stall_seconds,
        ),
        drain_seconds=config.drain_seconds,
        hang_seconds=config.hang_seconds,
        log_target=config.log_target,
        selection=Selection(config.log_level, config.log_sample, config.slow_ms),
    )
