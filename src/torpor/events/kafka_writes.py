"""What is under way to a topic of Kafka: it has happened once this process has read it back."""

from __future__ import annotations

import asyncio
import functools
import itertools
import uuid
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from torpor.errors import EventLogError
    from torpor.events.kafka_codec import Appended, Headers
    from torpor.events.kafka_wire import Wire

T = TypeVar("T")
_TOKEN = "torpor-token"  # noqa: S105 - it tells one message from another


class _Writing(NamedTuple, Generic[T]):
    done: asyncio.Future[T]
    appended: Appended | None


class Writes(Generic[T]):
    """Messages that this process wrote to one topic; ``failed`` is called when one fails."""

    def __init__(self, wire: Wire, topic: str, failed: Callable[[], None] = lambda: None) -> None:
        self._wire = wire
        self._topic = topic
        self._tell_failed = failed
        self._own = uuid.uuid4().hex[:12].encode() + b"."
        self._numbers = itertools.count(1)
        self._under_way: dict[bytes, _Writing[T]] = {}
        self._closed: EventLogError | None = None

    def write(
        self,
        partition: int,
        headers: Headers,
        value: bytes | None,
        key: str | None = None,
        appended: Appended | None = None,
    ) -> asyncio.Future[T]:
        """Write a message; the future is done once it is answered. ``appended`` need not be decoded again."""
        token = self._own + str(next(self._numbers)).encode()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._under_way[token] = _Writing(future, appended)
        failed = functools.partial(self._failed, token)
        if self._closed is not None:
            failed(self._closed)
        else:
            headers = [*headers, (_TOKEN, token)]
            self._wire.send(self._topic, partition, headers, value, key=key, failed=failed)
        return future

    def appended(self, token: bytes) -> Appended | None:
        """What this process appended by the message with that token, if it did."""
        writing = self._under_way.get(token)
        return None if writing is None else writing.appended

    def answer(self, token: bytes, answer: T) -> None:
        """The message with that token, if it is one of these, has been read and had that outcome."""
        writing = self._under_way.pop(token, None)
        if writing is not None and not writing.done.done():
            writing.done.set_result(answer)

    def close(self, error: EventLogError) -> None:
        """All that is under way has failed, as far as is known, and so does all that is written later."""
        self._closed = error
        for token in list(self._under_way):
            self._failed(token, error)

    def _failed(self, token: bytes, error: EventLogError) -> None:
        writing = self._under_way.pop(token, None)
        if writing is not None and not writing.done.done():
            writing.done.set_exception(error)
            writing.done.exception()  # who has gone away need not see it
        self._tell_failed()


def headers_and_token(message: Message) -> tuple[Headers, bytes]:
    """A message's headers without its token, and that."""
    headers: Any = message.headers() or []
    if headers and headers[-1][0] == _TOKEN:
        return headers[:-1], headers[-1][1]
    return headers, b""
