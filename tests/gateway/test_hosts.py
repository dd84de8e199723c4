"""Which host names a gateway answers to, and which pages may use it."""

from pathlib import Path

import httpx2
import pytest
from starlette.datastructures import Headers

from sidecar.gateway.hosts import Hosts

from ..client_lib.fake_daemon import FakeDaemon
from .process import GatewayProcess


def ask(address: str, **headers: str) -> httpx2.Response:
    return httpx2.post(f"{address}/v1/embeddings", json={"input": "a"}, headers=headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.1.2.3", "a b", ""]
)
def test_a_foreign_name_is_refused(gateway: GatewayProcess, fake: FakeDaemon, host: str) -> None:
    """Requests for a foreign host name get 421 on every path, which defeats DNS rebinding."""
    replies = [ask(gateway.address, host=host)]
    replies += [httpx2.get(gateway.address + path, headers={"host": host}) for path in PATHS]
    for reply in replies:
        assert (reply.status_code, reply.json()["error"]["code"]) == (421, "misdirected_request")
        assert "--allow-host" in reply.json()["error"]["message"]
    assert fake.seen == []


PATHS = ("/health", "/metrics", "/v1/models", "/nothing")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.:1", "app.localhost:80", "127.0.0.1:8000", "[::1]", "127.9.9.9"],
)
def test_this_hosts_own_names_are_answered(
    gateway: GatewayProcess, fake: FakeDaemon, host: str
) -> None:
    """This host's own names are accepted with any port, since ports may be forwarded."""
    assert ask(gateway.address, host=host).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example:1", "file://", "x"]
)
def test_a_foreign_page_is_refused(gateway: GatewayProcess, fake: FakeDaemon, origin: str) -> None:
    """Requests from a page of another origin get 403 and never reach the daemon."""
    reply = ask(gateway.address, origin=origin)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_origin")
    assert httpx2.get(f"{gateway.address}/metrics", headers={"origin": origin}).status_code == 403
    assert fake.seen == []


def test_a_page_of_this_host_may_ask(gateway: GatewayProcess, fake: FakeDaemon) -> None:
    """A page served under one of this host's names may use the gateway."""
    assert ask(gateway.address, origin="http://localhost:3000").status_code == 200


def test_names_may_be_added(fake: FakeDaemon) -> None:
    """`--allow-host` adds names, such as a proxy's, and the pages served under them."""
    with GatewayProcess(fake.socket, "--allow-host", "models.example", "[fd00::7]") as running:
        assert ask(running.address, host="Models.Example:443").status_code == 200
        assert ask(running.address, host="[FD00::7]:443").status_code == 200
        assert ask(running.address, origin="https://models.example").status_code == 200
        assert ask(running.address, host="other.example").status_code == 421


def test_other_hosts_ask_by_address(fake: FakeDaemon) -> None:
    """A gateway open to other hosts answers to any IP address, but not to unknown names."""
    with GatewayProcess(fake.socket, "--host", "0.0.0.0", "--allow-unauthenticated") as running:
        url = running.address.replace("0.0.0.0", "127.0.0.1")
        assert ask(url, host="192.0.2.7:8000").status_code == 200
        assert ask(url, host="evil.example").status_code == 421


def test_a_unix_socket_answers_by_any_name(fake: FakeDaemon, tmp_path: Path) -> None:
    """A gateway on a Unix socket answers to any name, since no browser can reach it."""
    path = tmp_path / "http.sock"
    with (
        GatewayProcess(fake.socket, "--uds", str(path)),
        httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path), verify=False)) as http,
    ):
        assert http.post("http://any/v1/embeddings", json={"input": "a"}).status_code == 200


def test_a_request_without_a_name_is_answered() -> None:
    """A request without a Host header, as in HTTP/1.0 health checks, is accepted."""
    assert Hosts((), any_address=False).refusal(Headers({})) is None


def test_which_names_are_ours() -> None:
    """Allowed names match in any case and with any port; names that merely resemble them do not."""
    hosts = Hosts(("models.example", "[fd00::7]", "10.0.0.7"), any_address=False)
    ours = [
        "localhost", "localhost.", "a.b.localhost", "LocalHost:8000", "127.0.0.1", "127.255.0.9:1",
        "[::1]:80", "models.example", "MODELS.EXAMPLE.:443", "[FD00::7]",
        "10.0.0.7:8000",
    ]  # fmt: skip
    foreign = [
        "evillocalhost", "localhost.evil.example", "localhost evil", "localhost@evil.example",
        "evil@localhost", "localhost:80:80", "localhost:port", "localhost:123456", "", ":80", "::1",
        "[::1", "sub.models.example", "models.example.evil", "10.0.0.8", "[fd00::8]", "128.0.0.1",
        "0.0.0.0",
    ]  # fmt: skip
    refusals = {host: hosts.refusal(Headers({"host": host})) for host in [*ours, *foreign]}
    assert [host for host, refusal in refusals.items() if refusal is None] == ours
    assert {refusal.status for refusal in refusals.values() if refusal is not None} == {421}
    spelled = Hosts(("[FD00:0:0::0007]",), any_address=False)
    for host in ("[fd00::7]", "[fd00:0::7]:443"):
        assert spelled.refusal(Headers({"host": host})) is None, host
    anywhere = Hosts((), any_address=True)
    for host, status in (("10.0.0.8", None), ("[fd00::8]:1", None), ("models.example", 421)):
        refusal = anywhere.refusal(Headers({"host": host}))
        assert (refusal and refusal.status) == status, host


def test_which_pages_are_ours() -> None:
    """Only HTTP(S) origins of allowed names pass, and each of several headers must pass."""
    hosts = Hosts(("models.example",), any_address=False)
    ours = ["http://localhost", "https://models.example:8443", "http://[::1]:3000"]
    foreign = [
        "null", "", "localhost", "ftp://localhost", "file://", "x http://localhost",
        "https://evil.example", "https://localhost.evil.example", "http://localhost/path",
    ]  # fmt: skip
    for origin in ours + foreign:
        refusal = hosts.refusal(Headers({"host": "localhost", "origin": origin}))
        assert (refusal and refusal.status) == (None if origin in ours else 403), origin
    for name, status in ((b"host", 421), (b"origin", 403)):
        good = b"localhost" if name == b"host" else b"http://localhost"
        for values in ([good, b"evil.example"], [b"evil.example", good]):
            twice = Headers(raw=[(name, value) for value in values])
            refusal = hosts.refusal(twice)
            assert refusal is not None
            assert refusal.status == status
