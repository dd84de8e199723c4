"""Shared by the commands: one flag for every setting."""

import argparse
import dataclasses
import os
from pathlib import Path

from sidecar.config import Config, Setting, flag_of, resolve


def add_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add `--env-file` and a flag for each setting in `names`, or for all of them."""
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read KEY=value settings")
    for f in dataclasses.fields(Config):
        if not names or f.name in names:
            about = f"{f.metadata['about']} (${f.metadata['variable']})".replace("%", "%%")
            parser.add_argument(flag_of(f.name), dest=f.name, metavar="VALUE", help=about)


def settings_of(arguments: argparse.Namespace) -> list[Setting]:
    """Return every setting with its source. Raises `ConfigError` for an invalid one."""
    return resolve(flags_of(arguments), os.environ, arguments.env_file)


def flags_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the text of each given setting flag, by field name."""
    given = vars(arguments)
    return {
        f.name: given[f.name] for f in dataclasses.fields(Config) if given.get(f.name) is not None
    }
