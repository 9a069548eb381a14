from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from torpor.transport.connection import Connection
from torpor.transport.outbox import Outbox

if TYPE_CHECKING:
    from torpor.errors import TransportError
    from torpor.transport.message import Headers

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Sent(asyncio.Transport):
    """A transport that says what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


class Told:
    """Who wants to know what comes of an exchange."""

    def __init__(self) -> None:
        self.ended = 0
        self.failures: list[TransportError] = []

    def on_head(self, status: int, headers: Headers) -> None:
        """Of no interest."""

    def on_data(self, data: bytes) -> None:
        """Of no interest."""

    def on_end(self) -> None:
        self.ended += 1

    def on_failure(self, error: TransportError) -> None:
        self.failures.append(error)

    def on_writable(self) -> None:
        """Of no interest."""


def connect(outbox: Outbox, rested: list[Connection]) -> tuple[Connection, Sent]:
    connection, sent = Connection(outbox, rested.append, lambda _: None), Sent()
    connection.connection_made(sent)
    return connection, sent


def start(connection: Connection, body: bytes = b"") -> Told:
    told = Told()
    connection.start(told, b"HEAD", body, head_only=False, upgrade=False)
    return told


def test_what_is_ready_runs_before_all_is_written() -> None:
    async def play() -> None:
        outbox, order = Outbox(), cast("list[bytes]", [])

        class Writer:
            def write_whole(self, request: bytes) -> None:
                order.append(request)

        outbox.add(Writer(), b"1")
        asyncio.get_running_loop().call_soon(outbox.add, Writer(), b"3")
        outbox.add(Writer(), b"2")
        assert order == []
        await asyncio.sleep(0)
        assert order == [b"1", b"2"]
        await asyncio.sleep(0)
        assert order == [b"1", b"2", b"3"]

    asyncio.run(play())


def test_a_connection_that_is_closed_meanwhile_is_sent_nothing() -> None:
    async def play() -> None:
        outbox, rested = Outbox(), cast("list[Connection]", [])
        connection, sent = connect(outbox, rested)
        other, also_sent = connect(outbox, rested)
        start(connection, b"body")
        start(other)
        connection.abort()
        await asyncio.sleep(0)
        assert sent.written == []
        assert also_sent.written == [b"HEAD"]

    asyncio.run(play())


def test_an_answer_to_what_was_not_sent_yet_is_nobody_elses() -> None:
    """Some servers say so when they close a connection that rests."""

    async def play() -> None:
        outbox, rested = Outbox(), cast("list[Connection]", [])
        connection, sent = connect(outbox, rested)
        told = start(connection)
        connection.data_received(OK)
        assert (told.ended, rested, sent.closed) == (1, [], True)
        await asyncio.sleep(0)
        assert sent.written == []

    asyncio.run(play())


def test_after_an_answer_to_what_was_sent_the_connection_rests() -> None:
    async def play() -> None:
        outbox, rested = Outbox(), cast("list[Connection]", [])
        connection, sent = connect(outbox, rested)
        told = start(connection, b"+body")
        await asyncio.sleep(0)
        connection.data_received(OK)
        assert (told.ended, rested, sent.written) == (1, [connection], [b"HEAD+body"])

    asyncio.run(play())
