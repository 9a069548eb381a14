"""The client of NATS, with messages read and written in a shorter way.

Headers are a quarter of what an event costs with the client as it is, since it takes any that anybody may
write; its parser, a queue and a task between the connection and who wants a message are as much again. What
is not plain goes the client's own way. The tests hold both ways against each other, and say so when a new
version of the client does not have any more what stands in for it here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from nats.aio import client
from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError
from nats.protocol import parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

_CRLF = b"\r\n"
_PLAIN_HEAD = b"NATS/1.0\r\n"
BLANKS = " \t\r\n\v\f"
"""What names and values of header lines may stand between."""


def header_lines(lines: bytes) -> list[tuple[str, str, str]]:
    """Name, colon and value of each header line, in their order and with the blanks around them.

    What has no colon is no header.
    """
    if not lines.isascii():
        parsed: dict[str, str] = client.Client._parse_header_lines(lines)  # noqa: SLF001 - what this is for
        return [(name, ":", value) for name, value in parsed.items()]
    return [line.partition(":") for line in lines.decode("ascii").split("\r\n")]


def headers_of(lines: bytes) -> dict[str, str]:
    """Header lines by name; of two of a name the last."""
    return {name.strip(BLANKS): value.strip(BLANKS) for name, colon, value in header_lines(lines) if colon}


class Heard:
    """A message. ``status``, such as ``404``, is of one that is no record.

    ``lines`` are the headers of any other as they came.
    """

    __slots__ = ("_headers", "data", "lines", "reply", "status", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, lines: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.lines = lines
        self.status: str | None = None
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Its headers, by name; that of a status is ``Status``."""
        if self._headers is None:
            self._headers = headers_of(self.lines)
        return self._headers

    @headers.setter
    def headers(self, headers: dict[str, str]) -> None:
        self._headers = headers
        self.status = headers.get("Status")


class Client(client.Client):
    """A connection to NATS."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)
        self._takers: dict[int, Callable[[Heard], None]] = {}

    async def hear(self, subject: str, take: Callable[[Heard], None]) -> Subscription:
        """Have ``take`` called with each message of ``subject`` as soon as it was read, in order.

        ``take`` must not raise, and what it keeps is bounded by itself. Raises ``nats.errors.Error``.
        """
        subscription = await self.subscribe(subject)
        self._takers[subscription._id] = take  # noqa: SLF001 - by it the server names what a message is for
        return subscription

    def tell(self, subject: str, payload: bytes) -> bool:
        """Send a small message without waiting for room; ``False`` where only :meth:`publish` can."""
        flusher, kicks = self._flusher_task, self._flush_queue
        connected = self._status == self.CONNECTED and self._pending_data_size < self._max_pending_size
        if not connected or kicks is None or flusher is None or flusher.done():
            return False
        message = b"PUB %b  %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)
        self._pending.append(message)
        self._pending_data_size += len(message)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        if kicks.empty():
            kicks.put_nowait(asyncio.get_running_loop().create_future())
        return True

    def taker(self, sid: int) -> Callable[[Heard], None] | None:
        """Who hears the messages of a subscription."""
        return self._takers.get(sid)

    async def heard(self, subject: bytes, reply: bytes, data: bytes, head: bytes) -> Heard:
        """The message of these parts, which is counted."""
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        if not head or head.startswith(_PLAIN_HEAD):
            return Heard(subject.decode(), reply.decode(), data, head[len(_PLAIN_HEAD) :])
        message = Heard(subject.decode(), reply.decode(), data, b"")
        message.headers = await self._process_headers(head) or {}
        return message

    async def _connect_to_server(self, s: client.Srv) -> None:
        try:
            await super()._connect_to_server(s)
        finally:
            # Its attempts to reconnect are cancelled when it is closed. Where a connection is refused or made
            # then, Python before 3.12 (asyncio.wait_for) loses this, and they would go on for ever.
            if self.is_closed and asyncio.current_task() is self._reconnection_task:
                if isinstance(self._transport, TcpTransport):
                    self._transport.close()  # type: ignore[no-untyped-call]
                raise asyncio.CancelledError
        if type(self._transport) is TcpTransport:
            self._transport = _Joining(self._transport)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._takers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        return headers_of(raw)

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes,
        payload_size: int,
        headers: dict[str, Any] | None,
    ) -> None:
        if headers is None and subject:
            message = b"".join((f"PUB {subject} {reply} {payload_size}\r\n".encode(), payload, _CRLF))
        else:
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) if headers else ""
            if not headers or not lines.count("\r") == lines.count("\n") == len(headers):
                await super()._send_publish(subject, reply, payload, payload_size, headers)
                return
            head = f"NATS/1.0\r\n{lines}\r\n".encode()
            command = f"HPUB {subject} {reply} {len(head)} {len(head) + payload_size}\r\n".encode()
            message = b"".join((command, head, payload, _CRLF))
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(message)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


class _Joining(TcpTransport):
    """Writes what is written at once as one piece: each piece costs as much as many bytes."""

    def __init__(self, connected: TcpTransport) -> None:
        self.__dict__.update(connected.__dict__)

    def writelines(self, payload: list[bytes]) -> None:
        """Write all of it."""
        if self._io_writer is not None:
            self._io_writer.write(b"".join(payload))


class _Parser(parser.Parser):
    """Reads what a server sends; what is not for who hears is the client's own parser's, each piece whole.

    Source: the NATS client protocol, ``MSG`` and ``HMSG``.
    """

    def __init__(self, nats: Client) -> None:
        super().__init__(nats)
        self._nats = nats

    def reset(self) -> None:
        """Begin anew, with another connection."""
        super().reset()
        self._rest = bytearray()
        self._wanted = 0  # with less nothing can be done

    async def parse(self, data: bytes = b"") -> None:
        """Take in what has come. Raises ``nats.errors.ProtocolError``."""
        rest = self._rest
        rest += data
        if len(rest) < self._wanted:
            return
        whole = bytes(rest)
        at = self._wanted = 0
        while (end := whole.find(_CRLF, at)) >= 0:
            end += 2
            if whole.startswith((b"MSG ", b"HMSG "), at):
                has_head = whole.startswith(b"H", at)
                parts = whole[at : end - 2].split()
                try:
                    sid, head_size, size = int(parts[2]), int(parts[-2]) if has_head else 0, int(parts[-1])
                except (IndexError, ValueError) as error:
                    raise ProtocolError("nats: malformed MSG") from error
                head, first, end = end, end + head_size, end + size + 2
                if len(whole) < end:
                    self._wanted = end - at
                    break
                take = self._nats.taker(sid)
                if take is not None:
                    reply = parts[3] if len(parts) == 5 + has_head else b""
                    at = end
                    take(await self._nats.heard(parts[1], reply, whole[first : end - 2], whole[head:first]))
                    continue
            piece, at = whole[at:end], end
            await super().parse(piece)
            if self._rest is not rest:  # that was the end of this connection
                return
        del rest[:at]
