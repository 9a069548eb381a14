"""Reading from JetStream: a pull consumer whose requests follow the free places of its reader.

One inbox takes what all pull requests bring. The server says of each request that ends how much of it was
left unfilled, so that what is still to come is always known; after a lost connection, or when the server's
heartbeat fails, a new inbox is opened and everything is asked for anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from nats.errors import Error

from torpor.errors import EventLogError
from torpor.events.jetstream_api import (
    CONSUMER_NOT_FOUND,
    STREAM_NOT_FOUND,
    ApiRefusedError,
    UnansweredError,
)
from torpor.events.jetstream_codec import (
    event_of,
    quoted,
    stored_of_delivery,
    stored_of_direct,
)
from torpor.events.log import MAX_FETCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.subscription import Subscription

    from torpor.events.jetstream_api import Api
    from torpor.events.log import Delivery, Stored
    from torpor.events.nats_client import Heard

_LOG = logging.getLogger("torpor.events")
REVISION = "torpor-revision"
"""In a consumer's metadata: which spec it was brought to last."""
MOST_ASKED = 128
"""Most messages that are under way at once; once they are half as many, more are asked for."""
_EXPIRES_SECONDS = 60.0
_HEARTBEAT_SECONDS = 5.0
_SILENCE_SECONDS = 2 * _HEARTBEAT_SECONDS + 1.0
_PENDING_SECONDS = 2.0  # who asks how things are does not want to wait for them to become well
_GONE = ("consumer deleted", "consumer not found", "stream deleted")


class ConsumerGoneError(EventLogError):
    """The consumer is not there any more."""


class Puller:
    """Pulls messages of one consumer."""

    def __init__(self, api: Api, stream: str, nats_consumer: str) -> None:
        self._api = api
        self._place = f"{quoted(stream)}.{nats_consumer}"
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._place}"
        self._what = f"consumer {nats_consumer!r} of stream {stream!r}"
        self._arrived: deque[Heard] = deque()
        self.asked = 0
        """How many messages are still to come of what was asked for."""
        self.ended = 0
        """How many requests ended without being filled."""
        self._news = asyncio.Event()
        self._subscription: Subscription | None = None
        self._gone = False
        self._doubtful = False
        self._stale = True
        self._unlisten = api.on_reconnect(self._mark_stale)

    async def pull(self, limit: int) -> list[Heard]:
        """Up to ``limit`` messages, once there is one. Raises :class:`ConsumerGoneError`."""
        while True:
            if self._arrived:
                count = min(limit, len(self._arrived), MAX_FETCH)
                return [self._arrived.popleft() for _ in range(count)]
            if self._gone:
                raise ConsumerGoneError(f"{self._what} is gone")
            self._news.clear()
            try:
                if self._doubtful:
                    await self._look()
                    continue
                if self._stale:
                    await self._renew()
                if self.asked < min(limit, MOST_ASKED // 2):
                    await self._ask(min(limit, MOST_ASKED) - self.asked)
            except UnansweredError:
                self._stale = True
                await self._api.pause(float("inf"), UnansweredError())
                continue
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                self._mark_stale()

    @property
    def under_way(self) -> int:
        """How many messages are still to come, or are here and were not pulled."""
        return self.asked + len(self._arrived)

    async def _look(self) -> None:
        """Is the consumer there? Nobody answered for it: it is gone, or JetStream is starting up."""
        await self._api.pause(float("inf"), UnansweredError())
        try:
            await self._api.call(f"CONSUMER.INFO.{self._place}")
        except ApiRefusedError as refused:
            if refused.code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise
            self._gone = True
        except EventLogError:
            return  # an outage, which is waited out
        self._doubtful = False

    async def close(self) -> None:
        """Stop reading."""
        self._unlisten()
        await self._unsubscribe()

    def left(self) -> list[Heard]:
        """What has arrived and was not pulled; it is taken out."""
        left = list(self._arrived)
        self._arrived.clear()
        return left

    async def _renew(self) -> None:
        await self._unsubscribe()
        inbox = self._api.client.new_inbox()
        try:
            self._subscription = await self._api.client.hear(inbox, self._take)
        except Error as error:
            raise EventLogError(f"{self._what} can't be read: {error}") from error
        self._inbox = inbox
        self.asked = 0
        self._stale = False

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(Error, OSError):
                await subscription.unsubscribe()

    async def _ask(self, batch: int) -> None:
        request = {
            "batch": batch,
            "expires": int(_EXPIRES_SECONDS * 1e9),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * 1e9),
        }
        self.asked += batch
        await self._api.publish(self._subject, orjson.dumps(request), self._inbox)

    def _mark_stale(self) -> None:
        self._stale = True
        self._news.set()

    def _take(self, message: Heard) -> None:
        status = message.status
        if status is None:
            if message.subject == self._inbox or not message.reply:
                return  # no record
            self.asked = max(0, self.asked - 1)
            self._arrived.append(message)
        elif status == "100":
            pass  # a heartbeat
        elif status == "503":
            self._doubtful = self._stale = True
        else:
            self.ended += 1
            headers = message.headers
            self.asked = max(0, self.asked - int(headers.get("Nats-Pending-Messages", "0")))
            said = str(headers.get("Description", "")).lower()
            if any(word in said for word in _GONE):
                self._gone = True
            elif status != "408":  # such as a server that shuts down
                _LOG.debug("a pull request has ended", extra={"status": status, "reason": said})
                self._stale = True
        self._news.set()


@dataclass(slots=True)
class JetStreamDelivery:
    """Keeps :class:`torpor.events.log.Delivery`."""

    api: Api
    record: Stored
    attempt: int
    reply: str
    settled: bool = False

    async def ack(self) -> None:
        """The record is done with."""
        # A coroutine less, for what comes most often.
        if self._settle() and not self.api.client.tell(self.reply, b"+ACK"):
            await self._say(b"+ACK")

    async def retry(self, delay_seconds: float) -> None:
        """Deliver the record again later."""
        if self._settle():
            nanoseconds = max(1, int(delay_seconds * 1e9))
            await self._say(b"-NAK " + orjson.dumps({"delay": nanoseconds}))

    async def extend(self) -> None:
        """Work is under way."""
        if not self.settled:
            await self._say(b"+WPI")

    def _settle(self) -> bool:
        """Whether this is the first word that settles it: the server would take a second one too."""
        first, self.settled = not self.settled, True
        return first

    async def _say(self, word: bytes) -> None:
        try:
            await self.api.publish(self.reply, word)
        except UnansweredError as error:
            raise EventLogError(f"NATS can't be reached: {error}") from error


class JetStreamConsumer:
    """Keeps :class:`torpor.events.log.Consumer`."""

    def __init__(self, api: Api, stream: str, name: str) -> None:
        self._api = api
        self._stream = stream
        self._place = f"{quoted(stream)}.{quoted(name)}"
        self._oldest: Stored | None = None
        self._puller = Puller(api, stream, quoted(name))

    async def fetch(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries, as soon as there is one."""
        messages = await self._puller.pull(limit)
        return [delivery_of(self._api, self._stream, message) for message in messages]

    @property
    def under_way(self) -> int:
        """How many deliveries may still come that were asked for."""
        return self._puller.under_way

    async def pending(self) -> int:
        """How many records wait to be delivered or acknowledged."""
        info = await self._api.call(f"CONSUMER.INFO.{self._place}", patience_seconds=_PENDING_SECONDS)
        return int(info["num_pending"]) + int(info["num_ack_pending"])

    async def waiting_since(self) -> float | None:
        """When the oldest record was stored that was never delivered."""
        info = await self._api.call(f"CONSUMER.INFO.{self._place}", patience_seconds=_PENDING_SECONDS)
        if not info["num_pending"]:
            return None
        start, subjects = ahead_of(info)
        if self._oldest is None or self._oldest.sequence < start:
            found = await asyncio.gather(*(self._first(subject, start) for subject in subjects))
            self._oldest = min(filter(None, found), key=lambda one: one.sequence, default=None)
        return None if self._oldest is None else self._oldest.stored_at

    async def _first(self, subject: str, start: int) -> Stored | None:
        """The first record from the sequence ``start`` on that has the subject."""
        request = orjson.dumps({"seq": start, "next_by_subj": subject})
        place = f"$JS.API.DIRECT.GET.{quoted(self._stream)}"
        message = await self._api.request(place, request, _PENDING_SECONDS)
        if message.status is not None or not message.headers:
            return None
        return stored_of_direct(self._stream, message.headers, message.lines, message.data)

    async def outstanding(self) -> int:
        """How many records were delivered and are not acknowledged."""
        info = await self._api.call(f"CONSUMER.INFO.{self._place}", patience_seconds=_PENDING_SECONDS)
        return int(info["num_ack_pending"])

    async def revision(self) -> str:
        """The revision of the spec that the durable consumer was brought to last."""
        info = await self._api.call(f"CONSUMER.INFO.{self._place}")
        return str((info["config"].get("metadata") or {}).get(REVISION, ""))

    async def close(self) -> None:
        """Stop reading; the durable consumer stays, and what was not fetched yet is for others at once."""
        await self._puller.close()
        for message in self._puller.left():
            with contextlib.suppress(EventLogError):
                await delivery_of(self._api, self._stream, message).retry(0.0)


def ahead_of(info: dict[str, Any]) -> tuple[int, list[str]]:
    """From which sequence on, and under which subjects, a consumer has still to be given records."""
    config = info["config"]
    subjects = config.get("filter_subjects") or [config.get("filter_subject") or ">"]
    return int(info["delivered"]["stream_seq"]) + 1, subjects


def delivery_of(api: Api, stream: str, message: Heard) -> JetStreamDelivery:
    """The delivery that ``message`` is."""
    event = event_of(message.lines, message.data)
    stored, attempt = stored_of_delivery(stream, message.subject, message.reply, event)
    return JetStreamDelivery(api, stored, attempt, message.reply)
