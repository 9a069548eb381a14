"""The client of NATS, with messages read and written in a shorter way.

Headers are a quarter of what an event costs with the client as it is, since it takes any that anybody may
write; a queue and a task between the connection and who wants a message are nearly as much. What is not plain
goes the client's own way. The tests hold both ways against each other, and say so when a new version of the
client does not have any more what stands in for it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nats.aio import client

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_CRLF = b"\r\n"
_PLAIN_HEAD = b"NATS/1.0\r\n"
_BLANKS = " \t\r\n\v\f"


class Client(client.Client):
    """A connection to NATS."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Callable[[Msg], None]] = {}

    async def hear(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """Have ``take`` called with each message of ``subject`` as soon as it was read, in order.

        ``take`` must not raise, and what it keeps is bounded by itself. Raises ``nats.errors.Error``.
        """
        subscription = await self.subscribe(subject)
        self._takers[subscription._id] = take  # noqa: SLF001 - by it the server names what a message is for
        return subscription

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._takers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self._takers.get(sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        if headers and headers.startswith(_PLAIN_HEAD):
            parsed = self._parse_header_lines(headers[len(_PLAIN_HEAD) :]) or None
        else:
            parsed = await self._process_headers(headers)
        take(self._build_message(sid, subject, reply, data, parsed))

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        if not raw.isascii():
            found: dict[str, str] = client.Client._parse_header_lines(raw)  # noqa: SLF001 - what this is for
            return found
        lines = [line.partition(":") for line in raw.decode("ascii").split("\r\n")]
        return {name.strip(_BLANKS): value.strip(_BLANKS) for name, colon, value in lines if colon}

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
