"""Writing to JetStream: whole or not at all, and in groups.

- An append of several records is an atomic batch (ADR-50) of up to 1,000; more make several batches. A batch
  that holds a duplicate is refused whole by the server: its records are then written each for itself, which
  is not atomic, but that happens only where an append is repeated, and a further repetition writes the rest.
- The server forces each record to the disk before it answers, or a batch as a whole, which takes as long as
  some tens of records. So once as many appends of one record are under way to a stream, further ones wait for
  each other and go together, as one batch (group commit). Where that is refused, each is written for itself,
  and has an answer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, NamedTuple

from torpor.errors import EventLogError, RecordTooLargeError, StreamFullError, SupersededError
from torpor.events import jetstream_codec as codec
from torpor.events.jetstream_api import Api, ApiRefusedError, NobodyThereError, UnansweredError, answer_of
from torpor.events.log import MAX_APPEND, Guard, Record, require_size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from torpor.events.nats_client import Heard


_BATCH = 1000
_BATCHES_AT_ONCE = 16  # the server takes 50 a stream
_POSTS_AT_ONCE = 500
_SINGLY = 32
"""So many appends of one record go to a stream at once before others go together, as many at least."""
_GROUP_RECORDS = 256
_GROUP_BYTES = 1024 * 1024
_RESERVED_BYTES = 1024  # for the headers of a batch
_MAX_HEADER_BYTES = 60_000  # the server stores their length in 16 bits
_STORE_FAILED = 10077
_WRONG_LAST_SEQUENCE = 10071
_GUARD_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
_GUARD_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
_DUPLICATES = frozenset({10201, 10158})
_SAME_KEY = "per subject"
_FULL = ("maximum bytes", "maximum messages", "insufficient", "resources exceeded")


class _Message(NamedTuple):
    subject: str
    payload: bytes
    headers: dict[str, str]


class _Lane:
    """Appends of one record to one stream: how many go singly, which go together, and who writes those."""

    def __init__(self) -> None:
        self.singly = 0
        self.waiting: list[tuple[_Message, asyncio.Future[bool]]] = []
        self.writer: asyncio.Task[None] | None = None


class Appender:
    """Writes records for one connection."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._batches = asyncio.Semaphore(_BATCHES_AT_ONCE)
        self._lanes: dict[str, _Lane] = {}

    async def append(self, stream: str, records: Sequence[Record], guard: Guard | None) -> list[bool]:
        """See :meth:`torpor.events.log.EventLog.append`."""
        if len(records) > MAX_APPEND:
            raise EventLogError(f"{len(records)} records in one append, at most {MAX_APPEND} were expected")
        if guard is not None and len(records) != 1:
            raise EventLogError(f"{len(records)} records in a guarded append, 1 was expected")
        messages = [self._message(stream, record, guard) for record in records]
        if len(messages) == 1 and guard is None:
            return [await self._write_one(stream, messages[0])]
        new: list[bool] = []
        for start in range(0, len(messages), _BATCH):
            new.extend(await self._write(stream, messages[start : start + _BATCH]))
        return new

    def _message(self, stream: str, record: Record, guard: Guard | None) -> _Message:
        headers = codec.headers_of(record.event)
        headers[codec.MESSAGE_ID] = record.identity
        if guard is not None:
            headers[_GUARD_SEQUENCE] = str(guard.sequence)
            headers[_GUARD_SUBJECT] = codec.subject(stream, guard.key)
        payload = record.event.data or b""
        size, most = codec.size_bytes(headers, payload), self._api.max_payload_bytes - _RESERVED_BYTES
        require_size(record, size, most)
        require_size(record, size - len(payload), _MAX_HEADER_BYTES, "attributes")
        return _Message(codec.subject(stream, record.key), payload, headers)

    # --- groups ---------------------------------------------------------------------------------------------

    async def _write_one(self, stream: str, message: _Message) -> bool:
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = _Lane()
        if lane.writer is None and lane.singly < _SINGLY:
            lane.singly += 1
            try:
                return (await self._write(stream, [message]))[0]
            finally:
                lane.singly -= 1
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lane.waiting.append((message, written))
        if lane.writer is None:
            lane.writer = asyncio.create_task(self._write_groups(stream, lane))
        return await written

    async def _write_groups(self, stream: str, lane: _Lane) -> None:
        group: list[tuple[_Message, asyncio.Future[bool]]] = []
        try:
            while lane.waiting:
                count = _fitting([message for message, _ in lane.waiting[:_GROUP_RECORDS]])
                group = lane.waiting[:count]
                del lane.waiting[:count]
                outcomes = await self._write_group(stream, [message for message, _ in group])
                for (_, written), outcome in zip(group, outcomes, strict=True):
                    if written.done():  # who waited for it has gone away
                        continue
                    if isinstance(outcome, BaseException):
                        written.set_exception(outcome)
                    else:
                        written.set_result(outcome)
        finally:
            for _, written in (*group, *lane.waiting):
                if not written.done():  # after a fault, or at the end of all
                    written.set_exception(EventLogError("writing has ended unexpectedly"))
                    written.exception()
            lane.waiting.clear()
            lane.writer = None

    async def _write_group(self, stream: str, messages: list[_Message]) -> list[bool | BaseException]:
        """Write messages that have nothing to do with each other; what became of each."""
        try:
            if len(messages) >= _SINGLY and await self._write_whole(stream, messages):
                return [True] * len(messages)
        except (ApiRefusedError, StreamFullError, RecordTooLargeError):
            pass  # for one of them, or since there is no room for all
        except EventLogError as error:
            return [error] * len(messages)
        each = (self._write(stream, [message]) for message in messages)
        found = await asyncio.gather(*each, return_exceptions=True)
        return [outcome if isinstance(outcome, BaseException) else outcome[0] for outcome in found]

    # --- writing --------------------------------------------------------------------------------------------

    async def _write(self, stream: str, messages: list[_Message]) -> list[bool]:
        if len(messages) > 1 and await self._write_whole(stream, messages):
            return [True] * len(messages)
        deadline = self._api.deadline()
        while True:
            try:
                return await self._each(messages)
            except UnansweredError as error:
                await self._pause(stream, deadline, error)

    async def _write_whole(self, stream: str, messages: list[_Message]) -> bool:
        """Write ``messages`` as one batch; false when one of them is there already."""
        deadline = self._api.deadline()
        while True:
            try:
                async with self._turn(deadline):
                    return await self._batch(messages)
            except UnansweredError as error:
                await self._pause(stream, deadline, error)

    @contextlib.asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncGenerator[None, None]:
        """One of the batches that may be under way at once, when there is one in time."""
        try:
            async with asyncio.timeout(self._api.left_seconds(deadline)):
                await self._batches.acquire()
        except TimeoutError:
            raise EventLogError("NATS is too slow: other writes wait for it already") from None
        try:
            yield
        finally:
            self._batches.release()

    async def _pause(self, stream: str, deadline: float, error: UnansweredError) -> None:
        if isinstance(error, NobodyThereError):
            await self._api.call(f"STREAM.INFO.{codec.quoted(stream)}")
        await self._api.pause(deadline, error)

    async def _batch(self, messages: list[_Message]) -> bool:
        """Write ``messages`` as one atomic batch; false when one of them is there already."""
        batch_id = uuid.uuid4().hex
        last = len(messages)
        for number, (subject, payload, headers) in enumerate(messages, start=1):
            marked = {**headers, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
            if number == 1:
                first = await self._api.post(subject, payload, marked)
            elif number == last:
                commit = await self._api.post(subject, payload, {**marked, "Nats-Batch-Commit": "1"})
            else:
                await self._api.publish(subject, payload, headers=marked)
        try:
            opened = await self._api.answer(first)
            if opened.data:
                answer_of(opened)
            answer_of(await self._api.answer(commit))
        except ApiRefusedError as refused:
            if refused.code in _DUPLICATES or _is_same_key(refused):
                return False
            raise _mapped(refused) from refused
        finally:
            first.cancel()
            commit.cancel()
        return True

    async def _each(self, messages: list[_Message]) -> list[bool]:
        """Write ``messages`` each for itself."""
        new: list[bool] = []
        for start in range(0, len(messages), _POSTS_AT_ONCE):
            posts: list[asyncio.Future[Heard]] = []
            try:
                for subject, payload, headers in messages[start : start + _POSTS_AT_ONCE]:
                    posts.append(await self._api.post(subject, payload, headers))
                for post in posts:
                    new.append(_is_new(await self._api.answer(post)))  # noqa: PERF401
            finally:
                for post in posts:
                    post.cancel()
        return new


def _fitting(messages: Sequence[_Message]) -> int:
    """How many of ``messages`` go together, one at least."""
    size = 0
    for count, message in enumerate(messages):
        size += len(message.payload)
        if count and size > _GROUP_BYTES:
            return count
    return len(messages)


def _is_new(message: Heard) -> bool:
    try:
        return not answer_of(message).get("duplicate", False)
    except ApiRefusedError as refused:
        if _is_same_key(refused) or refused.code in _DUPLICATES:
            return False
        raise _mapped(refused) from refused


def _is_same_key(refused: ApiRefusedError) -> bool:
    return refused.code == _STORE_FAILED and _SAME_KEY in refused.description


def _mapped(refused: ApiRefusedError) -> EventLogError:
    if refused.code == _WRONG_LAST_SEQUENCE:
        return SupersededError(f"another has taken over: {refused.description}")
    if any(word in refused.description for word in _FULL):
        return StreamFullError(f"the stream is full: {refused.description}")
    if "exceeds maximum" in refused.description or "message size" in refused.description:
        return RecordTooLargeError(refused.description)
    return refused
