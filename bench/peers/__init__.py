"""Servers of others that Sidecar is measured beside, each in an environment of its own."""

import argparse
import subprocess
import sys
from pathlib import Path

from bench.peers.environment import install, python_of
from bench.peers.table import PEERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="install")
    installing = verbs.add_parser("install", help="make their environments, by pip")
    known = [peer.name for peer in PEERS]
    installing.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    installing.add_argument("--into", type=Path, required=True, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Install what is not there yet; return 1 if any could not be."""
    if unknown := set(arguments.names) - {peer.name for peer in PEERS}:
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such peer")
    failed = False
    for peer in PEERS:
        if arguments.names and peer.name not in arguments.names:
            continue
        if python_of(peer, arguments.into):
            print(f"{peer.name}: is there", file=sys.stderr)
            continue
        try:
            install(peer, arguments.into)
        except subprocess.CalledProcessError as error:
            print(f"{peer.name}: pip ended with {error.returncode}", file=sys.stderr)
            failed = True
    return int(failed)
