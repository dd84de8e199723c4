"""`docs/protocol.md` agrees with the code."""

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

import pytest

from client_lib.wire.codec import encode
from client_lib.wire.errors import ReplyError
from client_lib.wire.messages import Hello, Ping, Request, request_to_map
from client_lib.wire.protocol import VERSION, Limits, ServerConnection

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
HEX = {
    name: bytes.fromhex(block)
    for name, block in re.findall(r"```hex ([\w-]+)\n(.*?)```", TEXT, re.DOTALL)
}


def test_the_exchange_is_what_the_code_sends() -> None:
    """The documented example exchange matches the code, byte for byte."""
    hello, ping = Hello(id=0, version=VERSION, client="doc"), Ping(id=1)
    server = ServerConnection(Limits())
    assert list(server.receive(HEX["hello"] + HEX["ping"])) == [hello, ping]
    limits = asdict(Limits())
    assert {
        "hello": encode(request_to_map(hello)),
        "ping": encode(request_to_map(ping)),
        "hello-reply": server.reply(0, version=1, server="sidecar/0.1.0", limits=limits, pid=4242),
        "ping-reply": server.reply(1),
    } == HEX


def test_the_assumed_limits_are_the_documented_ones() -> None:
    """The limits to assume before hello are 16 MiB, 2 048 texts and 1 MiB, as documented."""
    assert Limits() == Limits(16 * 2**20, 2048, 2**20)
    assert "assume 16 MiB, 2 048 and 1 MiB" in TEXT


@pytest.mark.parametrize("cls", ReplyError.__subclasses__())
def test_every_code_is_in_the_table(cls: type[ReplyError]) -> None:
    """Every error code is documented, with whether it is retryable."""
    assert f"| `{cls.code}` | {'yes' if cls.retryable else 'no'} |" in TEXT


@pytest.mark.parametrize("cls", get_args(Request))
def test_every_field_of_every_op_is_documented(cls: type[Request]) -> None:
    """Every operation has a section that documents all its fields."""
    section = TEXT.split(f"### `{cls.op}`\n")[1].split("\n##")[0]
    names = {field.name for field in fields(cls)} - {"id"}
    assert all(f"| `{name}` |" in section for name in names)
