"""`sidecar gateway`: serve the daemon over HTTP, for clients that do not speak its protocol."""

import argparse
import ipaddress
import resource
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

from client_lib.address import default_socket
from client_lib.distribution import DAEMON, install_command
from sidecar import events, systemd
from sidecar.cli.exits import EX_CONFIG
from sidecar.cli.gateway_keys import read_keys
from sidecar.cli.target import target
from sidecar.cli.terminal import complain
from sidecar.config import ConfigError
from sidecar.gateway.settings import Listener, Settings
from sidecar.serving.transport.listener import SocketFile

_HOST, _PORT = "127.0.0.1", "8000"
_MOST_PORT = 65_535
_DAY = 86_400
_LEAST_BODY, _MOST_BODY = 1_024, 2**30
_MOST_CONNECTIONS = 65_536


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "gateway",
        help="serve the daemon over HTTP, with the APIs of OpenAI, Cohere and Jina",
        description="Serve POST /v1/embeddings and /v1/rerank, GET /v1/models, /health and "
        "/metrics from the daemon, until SIGTERM.",
    )
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="the daemon's socket ($SIDECAR_SOCKET)"
    )
    parser.add_argument("--host", help=f"address to listen on (default: {_HOST})")
    parser.add_argument("--port", help=f"port to listen on; 0: any (default: {_PORT})")
    parser.add_argument(
        "--uds", type=Path, metavar="PATH", help="listen on a Unix socket instead, mode 0660"
    )
    parser.add_argument(
        "--timeout", default="30", metavar="SECONDS", help="timeout of a request (default: 30)"
    )
    parser.add_argument(
        "--max-body-bytes", default="16777216", metavar="BYTES",
        help="maximum size of a request (default: 16777216)",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE",
        help="require one of the keys in FILE, one per line, as a bearer token",
    )  # fmt: skip
    parser.add_argument(
        "--allow-unauthenticated", action="store_true",
        help="allow requests without a key from anybody who can reach the address; on loopback, "
        "that is every user of this host",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host", metavar="NAME", nargs="+", default=[], action="extend",
        help="accept these names in the Host header besides localhost, this host's name and "
        "that of --host",
    )  # fmt: skip
    parser.add_argument(
        "--max-connections", default="512", metavar="N",
        help="maximum concurrent connections (default: 512)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM; return 78 if the configuration cannot be used."""
    try:
        # Its dependencies are an extra.
        gateway = import_module("sidecar.gateway.serve")
    except ModuleNotFoundError as error:
        complain(f"the gateway needs {error.name}: {install_command(DAEMON, 'gateway')}")
        return EX_CONFIG
    settings = _settings(arguments)
    _raise_descriptor_limit(settings)
    listener = _listener(arguments, settings)
    events.configure(target("auto"))
    return int(gateway.run(settings, listener, systemd.take()))


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        daemon=arguments.socket or default_socket(),
        timeout=_number("--timeout", arguments.timeout, 0.001, _DAY),
        max_body_bytes=int(
            _number("--max-body-bytes", arguments.max_body_bytes, _LEAST_BODY, _MOST_BODY)
        ),
        max_connections=int(
            _number("--max-connections", arguments.max_connections, 1, _MOST_CONNECTIONS)
        ),
        keys=read_keys(arguments.api_key_file) if arguments.api_key_file else (),
    )


def _number(flag: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ConfigError(f"{flag}={text}: must be a number from {least:g} to {most:g}")
    return value


def _raise_descriptor_limit(settings: Settings) -> None:
    """Raise the soft limit on open files to what the gateway may need. Raises `ConfigError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.descriptors
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"--max-connections={settings.max_connections} needs {needed} open files, but this "
            f"process is limited to {hard}: raise that limit (ulimit -Hn, LimitNOFILE=) or lower "
            "--max-connections"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _listener(arguments: argparse.Namespace, settings: Settings) -> Listener:
    """Listen on the address in the flags. Raises `ConfigError` or `SocketUnavailable`."""
    if arguments.uds is None:
        return _tcp(arguments, settings)
    if arguments.host or arguments.port:
        raise ConfigError("--uds replaces --host and --port: give one or the other")
    if arguments.allow_host:
        raise ConfigError("--allow-host is for --host and --port: --uds accepts any name")
    file = SocketFile.bind(arguments.uds)
    return Listener(socket=file.socket, address=f"unix:{file.path}", unlink=file.unlink)


def _tcp(arguments: argparse.Namespace, settings: Settings) -> Listener:
    host, port = arguments.host or _HOST, arguments.port or _PORT
    number = int(_number("--port", port, 0, _MOST_PORT))
    guarded = bool(settings.keys) or arguments.allow_unauthenticated
    try:
        found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)
        # Prefer IPv4 if a name has both.
        family, _, _, _, address = min(found, key=lambda each: each[0])
        is_loopback = ipaddress.ip_address(address[0]).is_loopback
        if not (guarded or is_loopback):
            raise ConfigError(
                f"--host {host} is reachable from other hosts: require a key with "
                "--api-key-file, or pass --allow-unauthenticated"
            )
        sock = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: {error.strerror or error}") from None
    return Listener(
        socket=sock,
        address=_url(sock),
        names=(host, socket.gethostname(), *arguments.allow_host),
        any_address=not is_loopback,
        is_open=not guarded,
    )


def _url(sock: socket.socket) -> str:
    shown, bound = sock.getsockname()[:2]
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{bound}"
