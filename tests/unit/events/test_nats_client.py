"""Headers of NATS messages, the short way and the client's own: both give the same."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import pytest
from nats.aio import client
from nats.errors import ProtocolError

from torpor.events.jetstream import JetStreamLog
from torpor.events.nats_client import Client, Heard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
        heard: list[Heard] = []
        subscription = await theirs.client.subscribe("a.>")
        hearing = await ours.client.hear("a.>", heard.append)
        for wire in (theirs, ours):
            await wire.client._ps.parse(_written(b"a.b", 1, reply, head, b"data"))
        [got], expected = heard, await subscription.next_msg()
        assert (got.subject, got.reply, got.data, got.headers) == (
            expected.subject,
            expected.reply,
            expected.data,
            expected.headers or {},
        )
        assert got.status == (expected.headers or {}).get("Status")
        assert ours.client.stats == theirs.client.stats
        await hearing.unsubscribe()
        await ours.client._ps.parse(_written(b"a.b", 1, reply, head, b"data"))
        assert len(heard) == 1

    asyncio.run(run())


def _written(subject: bytes, sid: int, reply: bytes, head: bytes, data: bytes) -> bytes:
    """As a server writes a message."""
    sizes = b"%d %d" % (len(head), len(head) + len(data)) if head else b"%d" % len(data)
    parts = [b"HMSG" if head else b"MSG", subject, b"%d" % sid, *([reply] if reply else []), sizes]
    return b" ".join(parts) + b"\r\n" + head + data + b"\r\n"


class _Talk:
    """What a server may write, and what became of it with one kind of client."""

    WRITTEN = (
        b"PING\r\n",
        _written(b"a.1", 1, b"", b"NATS/1.0\r\nce-id: 1\r\n\r\n", b"x\r\nMSG a.9 1 1\r\ny\r\n"),
        _written(b"a.2", 1, b"back.1", b"", b""),
        b"+OK\r\n",
        _written(b"b.1", 2, b"back.2", b"NATS/1.0\r\nx: y\r\n\r\n", b"other"),
        _written(b"a.3", 1, b"", b"NATS/1.0 404\r\n\r\n", b""),
        b'INFO {"max_payload": 7}\r\n',
        _written(b"c.1", 3, b"", b"", b"nobody's"),
        _written(b"a.4", 1, b"", b"", b"z" * 300),
        b"PONG\r\n",
    )

    def __init__(self, kind: type[client.Client]) -> None:
        self.wire = _Wire(kind)
        self.seen: list[tuple[str, ...]] = []

    async def run(self, pieces: list[bytes]) -> None:
        nats = self.wire.client
        nats._process_info = self._informed
        if isinstance(nats, Client):
            await nats.hear(
                "a.>", lambda got: self.seen.append(("a", got.subject, got.reply, repr(got.data)))
            )
        else:
            hearing = await nats.subscribe("a.>")
        subscription = await nats.subscribe("b.>")
        for piece in pieces:
            await nats._ps.parse(piece)
        for name, each in (("b", subscription), *([] if isinstance(nats, Client) else [("a", hearing)])):
            while each.pending_msgs:
                self._see(name, await each.next_msg())
        self.seen.sort()

    async def _informed(self, info: dict[str, Any]) -> None:
        self.seen.append(("info", repr(info)))

    def _see(self, name: str, got: Any) -> None:
        self.seen.append((name, got.subject, got.reply, repr(got.data)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 64, 10_000])
def test_what_a_server_writes_is_read_as_the_client_does_in_pieces_of_any_size(size: int) -> None:
    whole = b"".join(_Talk.WRITTEN) * 2
    theirs, ours = _Talk(client.Client), _Talk(Client)
    for talk in (theirs, ours):
        asyncio.run(talk.run([whole[at : at + size] for at in range(0, len(whole), size)]))
    assert ours.seen == theirs.seen
    assert len(ours.seen) == 12
    assert ours.wire.written == theirs.wire.written
    assert ours.wire.client.stats == theirs.wire.client.stats


@pytest.mark.parametrize("said", [b"MSG a\r\n", b"MSG a b 1\r\n", b"HMSG a 1 x 5\r\n", b"HELLO\r\n"])
def test_what_no_server_writes_is_an_error(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        asyncio.run(_Wire(Client).client._ps.parse(said))


def test_a_new_connection_begins_with_nothing_of_the_old_one() -> None:
    wire = _Wire(Client)
    asyncio.run(wire.client._ps.parse(_written(b"a", 1, b"", b"", b"data")[:-3]))
    wire.client._ps.reset()
    asyncio.run(wire.client._ps.parse(b"PING\r\n"))
    assert wire.written == [b"PONG\r\n"]


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("reply", ["", "_INBOX.1"])
def test_messages_are_written_as_the_client_does(headers: dict[str, Any] | None, reply: str) -> None:
    theirs, ours = _Wire(client.Client), _Wire(Client)
    for wire in (theirs, ours):
        asyncio.run(wire.client._send_publish("a.b", reply, b"data", 4, headers))
    assert b"".join(ours.written) == b"".join(theirs.written)
    assert (ours.flushes, ours.client.stats) == (theirs.flushes, theirs.client.stats)


def test_what_is_told_is_written_as_what_is_published() -> None:
    async def run() -> None:
        theirs, ours = _Wire(client.Client), Client()
        await theirs.client._send_publish("a.b", "", b"+ACK", 4, None)
        assert not ours.tell("a.b", b"+ACK")  # there is no connection
        ours._status, ours._flush_queue = Client.CONNECTED, asyncio.Queue()
        ours._max_pending_size = 20
        ours._flusher_task = asyncio.create_task(asyncio.Event().wait())
        assert ours.tell("a.b", b"+ACK")
        assert ours.tell("a.b", b"+ACK")
        assert not ours.tell("a.b", b"+ACK")  # there is no room
        assert ours._pending == theirs.written * 2
        assert ours._pending_data_size == len(b"".join(ours._pending))
        assert ours._flush_queue.qsize() == 1
        assert ours.stats == {name: 2 * count for name, count in theirs.client.stats.items()}
        ours._pending_data_size = 0
        ours._flusher_task.cancel()
        await asyncio.wait([ours._flusher_task])
        assert not ours.tell("a.b", b"+ACK")  # nobody would write it

    asyncio.run(run())


class _Answering:
    """As much of the API as reading a page takes: it has the answers to one request after the other."""

    def __init__(self, *answers: list[Heard]) -> None:
        self._answers = list(answers)

    def deadline(self) -> float:
        return 0.0

    async def pause(self, deadline: float, error: Exception) -> None:
        assert self._answers, error

    @contextlib.asynccontextmanager
    async def stream(self, subject: str, payload: bytes) -> AsyncIterator[AsyncIterator[Heard]]:
        async def each() -> AsyncIterator[Heard]:
            for answer in self._answers.pop(0):
                yield answer

        yield each()


def _record(sequence: int) -> Heard:
    lines = f"Nats-Subject: torpor.s.a.{sequence}\r\nNats-Sequence: {sequence}\r\n"
    return Heard(
        "_INBOX.1", "", b"x", f"{lines}Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\nce-id: 1\r\n".encode()
    )


def _status(status: str, **headers: str) -> Heard:
    message = Heard("_INBOX.1", "", b"", b"")
    message.headers = {"Status": status, **headers}
    return message


GONE = _status("404", Description="Message Not Found")


@pytest.mark.parametrize(
    "answers",
    [
        [[_record(1), _record(2), GONE], [_record(4), _status("204")]],
        [[GONE], [_record(1), _record(2), _record(4), _status("204")]],
        [[_record(1), _record(2), _record(4), GONE], [_status("404", Description="No Results")]],
    ],
)
def test_a_record_that_goes_while_it_is_read_ends_no_reading(answers: list[list[Heard]]) -> None:
    async def read() -> list[int]:
        log = JetStreamLog(_Answering(*answers))  # type: ignore[arg-type]
        log._once_per_key.add("s")
        return [stored.sequence async for stored in log.read("s", "a.>")]

    assert asyncio.run(read()) == [1, 2, 4]


@pytest.mark.parametrize("listens", [True, False])
def test_a_client_that_was_closed_connects_no_more(listens: bool) -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if not listens:
            server.close()
            await server.wait_closed()
        nats: Any = Client()
        nats.options = {"connect_timeout": 5}
        nats._status = Client.CLOSED
        there = client.Srv(urlparse(f"nats://127.0.0.1:{port}"))
        nats._reconnection_task = asyncio.create_task(nats._connect_to_server(there))
        await asyncio.wait([nats._reconnection_task])
        assert nats._reconnection_task.cancelled()
        if nats._transport is not None:
            await nats._transport.wait_closed()
        server.close()
        await server.wait_closed()

    asyncio.run(run())
