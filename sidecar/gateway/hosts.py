"""Checks of the `Host` and `Origin` headers against DNS rebinding and foreign pages.

A web site can point its own name at this host's address (DNS rebinding), and its scripts then reach
the gateway as if it were that site. So `Host` must be one of our own names. A script that uses one
of our names from a foreign page is recognised by its `Origin`.
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
    """ASGI middleware that refuses requests whose headers `hosts` does not allow."""

    def __init__(self, app: ASGIApp, hosts: "Hosts") -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI request."""
        refusal = self._hosts.refusal(Headers(scope=scope))
        answer = self._app if refusal is None else refusal.response()
        await answer(scope, receive, send)


class Hosts:
    """The allowed names and addresses; localhost and loopback addresses always are.

    `any_address` allows every IP address: a page cannot rebind one.
    """

    def __init__(self, names: Collection[str], *, any_address: bool) -> None:
        self._names = {_one_spelling(name) for name in map(name_of, names) if name is not None}
        self._any_address = any_address

    def refusal(self, headers: Headers) -> Refusal | None:
        """Return the refusal of a request with these headers, or None if they are allowed."""
        # HTTP/1.0 requests may lack a Host; browsers always send one.
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
    """Return the name or address in a Host header; None if it is malformed."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").rstrip(".").lower() if found else None


def _one_spelling(name: str) -> str:
    """Return an address in its shortest form, as browsers send it; a name unchanged."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _misdirected(host: str) -> Refusal:
    message = (
        f"this gateway does not serve the host {host!r:.80}: use localhost, or start it "
        "with --allow-host and that name"
    )
    return Refusal(421, message, code="misdirected_request")


def _foreign(origin: str) -> Refusal:
    message = (
        f"pages from {origin!r:.80} may not use this gateway: call it from a program, or start it "
        "with --allow-host and that site's name"
    )
    return Refusal(403, message, code="foreign_origin")
