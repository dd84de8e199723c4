"""Which keys a file holds, and what a caller without one gets."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from sidecar.cli import main
from sidecar.cli.gateway_keys import read_keys
from sidecar.config import ConfigError

from ..client_lib.fake_daemon import FakeDaemon
from .process import GatewayProcess

FIRST, SECOND = "0123456789abcdef", "fedcba9876543210-and-more"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    return path


def embed(http: httpx2.Client, authorization: bytes) -> httpx2.Response:
    headers = {"authorization": authorization}
    return http.post("/v1/embeddings", json={"input": "a"}, headers=headers)


def test_keys_are_asked_for(fake: FakeDaemon, file: Path) -> None:
    """Every key of the file is accepted, and anything else gets 401."""
    file.write_text(f"{FIRST}\n{SECOND}\n")
    with (
        GatewayProcess(fake.socket, "--api-key-file", str(file)) as running,
        httpx2.Client(base_url=running.address, verify=False) as http,
    ):
        for good in (f"Bearer {FIRST}", f"bearer {SECOND}"):
            assert embed(http, good.encode()).status_code == 200
        for bad in ("", "Bearer", f"Bearer {FIRST[:-1]}", f"Basic {FIRST}", FIRST, "Bearer \xe9"):
            reply = embed(http, bad.encode("latin-1"))
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert reply.headers["www-authenticate"] == "Bearer"
        assert {http.get(path).status_code for path in ("/metrics", "/v1/models")} == {401}


@pytest.mark.slow
def test_health_is_for_everybody_and_its_reason_for_who_has_a_key(
    no_daemon: Path, file: Path
) -> None:
    """/health needs no key, but gives its reason only to callers with one."""
    file.write_text(FIRST)
    flags = ("--api-key-file", str(file), "--timeout", "0.2")
    with (
        GatewayProcess(no_daemon, *flags) as running,
        httpx2.Client(base_url=running.address, verify=False) as http,
    ):
        without = http.get("/health")
        wrong = http.get("/health", headers={"authorization": f"Bearer {SECOND}"})
        known = http.get("/health", headers={"authorization": f"Bearer {FIRST}"})
    assert without.json() == wrong.json() == {"status": "unavailable"}
    assert {reply.status_code for reply in (without, wrong, known)} == {503}
    assert str(no_daemon) in known.json()["reason"]


def test_comments_and_blank_lines_are_no_keys(file: Path) -> None:
    """Comments, blank lines, a byte order mark and surrounding whitespace are ignored."""
    file.write_bytes(
        b"\xef\xbb\xbf# the keys of our callers-and-friends\n\n"
        + f"  {FIRST}\r\n   # another-comment-of-length\n{SECOND}".encode()
    )
    assert read_keys(file) == (FIRST.encode(), SECOND.encode())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("secret-fifteen-", "line 2: a key needs at least 16 characters"),
        ("secret-one-of-two secret-two-of-two", "line 2: a key is printable ASCII without spaces"),
        ("secret-key-of-length\tx", "line 2: a key is printable ASCII without spaces"),
        ("secret-schlüssel-lang", "line 2: a key is printable ASCII without spaces"),
        ("secret-key-of-length\0", "line 2: a key is printable ASCII without spaces"),
    ],
)
def test_a_line_that_is_no_key_is_named_and_not_shown(
    file: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    """An invalid key is reported by its line number, without its text."""
    file.write_text(f"# comment\n{line}\n")
    assert main(["gateway", "--api-key-file", str(file)]) == 78
    (stderr,) = capsys.readouterr().err.splitlines()
    assert message in stderr
    assert "secret" not in stderr


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_file_that_every_user_may_open_is_refused(file: Path, mode: int) -> None:
    """A key file open to every user is refused, with the chmod to run; a group may read it."""
    file.write_text(FIRST)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"open to every user .mode {mode:04o}.: chmod o= {file}"):
        read_keys(file)
    file.chmod(0o640)
    assert read_keys(file) == (FIRST.encode(),)


def test_keys_may_come_from_a_pipe() -> None:
    """Keys can be read from a pipe, as in a shell's <(command)."""
    read, write = os.pipe()
    os.write(write, FIRST.encode())
    os.close(write)
    code = f"from sidecar.cli.gateway_keys import *; print(read_keys(Path('/dev/fd/{read}')))"
    done = subprocess.run(
        [sys.executable, "-c", code], pass_fds=[read], capture_output=True, text=True, check=True
    )
    os.close(read)
    assert done.stdout == f"({FIRST.encode()!r},)\n"
