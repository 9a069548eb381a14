"""Headers of NATS messages, the short way and the client's own: both give the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from nats.aio import client

from torpor.events.nats_client import Client

if TYPE_CHECKING:
    from nats.aio.msg import Msg

BLOCKS = [
    b"",
    b"\r\n",
    b"ce-id: 1\r\nce-type: a.b\r\n\r\n",
    b"ce-id:1\r\nce-source:\t/s\r\nce-type:   a  \r\n\r\n",
    b"ce-subject: a: b: c\r\nempty:\r\nempty too: \r\n\r\n",
    b"no colon\r\n: no name\r\n twice : 1\r\ntwice: 2\r\n\r\n",
    "ce-subject: gr\u00fcn\r\nn\u00e4me: 1\r\nce-id: 2\r\n\r\n".encode(),
    b"ce-subject: \xff\r\nce-id: 2\r\n\r\n",
]
HEADERS: list[dict[str, Any] | None] = [
    None,
    {},
    {"ce-id": "1"},
    {"Nats-Msg-Id": "ab", "ce-id": "1", "ce-source": "/s", "content-type": "text/plain; charset=utf-8"},
    {"ce-subject": "gr\u00fcn"},
    {"ce-id": "1\r\nce-type: forged"},
    {"ce-id": "1\nb"},
]


@pytest.mark.parametrize("block", BLOCKS)
def test_headers_are_read_as_the_client_does(block: bytes) -> None:
    theirs = client.Client._parse_header_lines(block)
    ours = Client._parse_header_lines(block)
    assert {name: value for name, value in ours.items() if name in theirs} == theirs
    assert all(not name or " " in name for name in ours.keys() - theirs.keys())


class _Wire:
    """Keeps what a client writes."""

    def __init__(self, kind: type[client.Client]) -> None:
        self.client: Any = kind()
        self.written: list[bytes] = []
        self.flushes = 0
        self.client._send_command = self._send  # type: ignore[method-assign]
        self.client._flush_pending = self._flush  # type: ignore[method-assign]
        self.client._flush_queue = asyncio.Queue()

    async def _send(self, cmd: bytes, priority: bool = False) -> None:
        self.written.append(bytes(cmd))

    async def _flush(self, force_flush: bool = False) -> None:
        self.flushes += 1


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nce-id: 1\r\nce-type: a.b\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 100\r\nIdle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
    ],
)
@pytest.mark.parametrize("reply", [b"", b"_INBOX.1"])
def test_who_hears_gets_messages_as_who_subscribes(head: bytes, reply: bytes) -> None:
    async def run() -> None:
        theirs, ours = _Wire(client.Client), _Wire(Client)
        heard: list[Msg] = []
        subscription = await theirs.client.subscribe("a.>")
        hearing = await ours.client.hear("a.>", heard.append)
        for wire in (theirs, ours):
            await wire.client._process_msg(1, b"a.b", reply, b"data", head)
        [got], expected = heard, await subscription.next_msg()
        assert (got.subject, got.reply, got.data, got.headers) == (
            expected.subject,
            expected.reply,
            expected.data,
            expected.headers,
        )
        assert ours.client.stats == theirs.client.stats
        await hearing.unsubscribe()
        await ours.client._process_msg(1, b"a.b", reply, b"data", head)
        assert len(heard) == 1

    asyncio.run(run())


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("reply", ["", "_INBOX.1"])
def test_messages_are_written_as_the_client_does(headers: dict[str, Any] | None, reply: str) -> None:
    theirs, ours = _Wire(client.Client), _Wire(Client)
    for wire in (theirs, ours):
        asyncio.run(wire.client._send_publish("a.b", reply, b"data", 4, headers))
    assert b"".join(ours.written) == b"".join(theirs.written)
    assert (ours.flushes, ours.client.stats) == (theirs.flushes, theirs.client.stats)
