"""Whose name a request may call this gateway by.

A page of some web site may give its own name this host's address (DNS rebinding), and its scripts
then ask in that name, as if they asked the site itself. So a name has to be one of ours. What a
script of a foreign page asks by our own name is told by its `Origin`.
"""

import ipaddress
import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.gateway.refusals import Refusal

_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:\[\]/@]+)(:\d{0,5})?", re.ASCII)
_ORIGIN = re.compile(r"https?://(.+)", re.ASCII)


class Addressed:
    """An application that answers by the names that `hosts` allows, and no others."""

    def __init__(self, app: ASGIApp, hosts: "Hosts") -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, by ASGI."""
        refusal = self._hosts.refusal(Headers(scope=scope))
        answer = self._app if refusal is None else refusal.response()
        await answer(scope, receive, send)


class Hosts:
    """Names and addresses; beside them this host's own: localhost, and loopback addresses.

    Where `any_address` is true, an address is as good as a name: a page cannot give itself one.
    """

    def __init__(self, names: Collection[str], *, any_address: bool) -> None:
        self._names = {_one_spelling(name) for name in map(name_of, names) if name is not None}
        self._any_address = any_address

    def refusal(self, headers: Headers) -> Refusal | None:
        """Return what to answer a request with these headers; None for the request's answer."""
        # HTTP/1.0 needs no name; a browser sends one always.
        for host in headers.getlist("host"):
            if not self._allows(host):
                return _misdirected(host)
        for origin in headers.getlist("origin"):
            if not self._allows_origin(origin):
                return _foreign(origin)
        return None

    def _allows_origin(self, origin: str) -> bool:
        found = _ORIGIN.fullmatch(origin)
        return found is not None and self._allows(found[1])

    def _allows(self, host: str) -> bool:
        name = name_of(host)
        if name is None:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            ours = name == "localhost" or name.endswith(".localhost")
            return ours or name in self._names
        return address.is_loopback or self._any_address or str(address) in self._names


def name_of(host: str) -> str | None:
    """Return the name, or the address, in a Host header; None where there is none."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").rstrip(".").lower() if found else None


def _one_spelling(name: str) -> str:
    """Return an address as it is written shortest, which is how browsers do; a name as it is."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _misdirected(host: str) -> Refusal:
    message = (
        f"this gateway does not answer by the name {host!r:.80}: ask for localhost, or start it "
        "with --allow-host and that name"
    )
    return Refusal(421, message, code="misdirected_request")


def _foreign(origin: str) -> Refusal:
    message = (
        f"a page of {origin!r:.80} may not ask this gateway: ask from a program, or start the "
        "gateway with --allow-host and that site's name"
    )
    return Refusal(403, message, code="foreign_origin")
