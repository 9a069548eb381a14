"""The event log in NATS JetStream (2.12 or newer).

How the contract is kept:

- A record's identity is its ``Nats-Msg-Id``; ``once_per_key`` is ``discard_new_per_subject`` with one message
  a subject.
- How it is written is told in :mod:`torpor.events.jetstream_appender`.
- A guard is the last sequence that is expected on another subject of the stream, or below it.
- A copy of a stream may be behind the others, and any of them answers reads. So a reader that finds no more
  asks the one that leads what the newest record under the key is, and goes on until it has that one.
- An acknowledgement is sent and not waited for. One that is lost with the connection or the server means
  that the record is delivered again, as it is after any crash.
- What is written survives the end of the server's process in any way, since it is in the files. Whether it
  survives the end of the machine is up to the server's ``sync_interval``.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import TYPE_CHECKING, Any

import orjson

from torpor.errors import EventLogError
from torpor.events import jetstream_codec as codec
from torpor.events.jetstream_api import (
    CONSUMER_NOT_FOUND,
    PATIENCE_SECONDS,
    STREAM_NOT_FOUND,
    Api,
    ApiRefusedError,
    UnansweredError,
)
from torpor.events.jetstream_appender import Appender
from torpor.events.jetstream_codec import quoted, unquoted
from torpor.events.jetstream_consumer import (
    REVISION,
    ConsumerGoneError,
    JetStreamConsumer,
    Puller,
    ahead_of,
    delivery_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from torpor.clock import Clock
    from torpor.events.log import ConsumerSpec, Guard, Record, Stored, StreamSpec

_READ_AT_ONCE = 256
_TAIL_AT_ONCE = 256
_TAIL_IDLE_SECONDS = 60.0
_NO_MESSAGE = 10037
_NOTHING = "No Results"  # else the server found that one of those it had looked up is gone


class _TooManyKeysError(Exception):
    """The server does not look up so many keys at once."""


class JetStreamLog:
    """Keeps :class:`torpor.events.log.EventLog`."""

    def __init__(self, api: Api, copies: int = 1) -> None:
        self._api = api
        self._copies = copies
        self._once_per_key: set[str] = set()
        self._appender = Appender(api)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        token: str | None = None,
        name: str = "torpor",
        clock: Clock | None = None,
        copies: int = 1,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> JetStreamLog:
        """Connect to the server at ``url`` (``nats://host:port``, or several with commas between).

        The connection is kept up for ever. ``copies`` is on how many servers of a cluster each stream is: 1,
        3 or 5. ``patience_seconds`` is how long a call outlasts an outage before it raises
        :class:`~torpor.errors.EventLogError`.
        """
        api = await Api.connect(url, token=token, name=name, clock=clock, patience_seconds=patience_seconds)
        return cls(api, copies)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._api.connected

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when a connection that was lost is there again; what is returned ends that."""
        return self._api.on_reconnect(listener)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._api.close()

    # --- streams --------------------------------------------------------------------------------------------

    async def ensure_stream(self, spec: StreamSpec) -> bool:
        """Create the stream or bring it to ``spec``; whether it is new."""
        name = quoted(spec.name)
        config = _stream_config(spec, self._copies)
        self._once_per_key.discard(spec.name)
        is_new = False
        try:
            await self._api.call(f"STREAM.UPDATE.{name}", config)
        except ApiRefusedError as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise
            await self._api.call(f"STREAM.CREATE.{name}", config)
            is_new = True
        if spec.once_per_key:
            self._once_per_key.add(spec.name)
        return is_new

    async def streams(self) -> list[str]:
        """The names of all streams, sorted."""
        found: list[str] = []
        offset = 0
        while True:
            page = await self._api.call("STREAM.LIST", {"offset": offset})
            entries = page.get("streams") or []
            for entry in entries:
                config = entry["config"]
                if codec.is_stream(config["name"], config.get("subjects") or []):
                    found.append(unquoted(config["name"]))
            offset += len(entries)
            if not entries or offset >= int(page["total"]):
                return sorted(found)

    async def remove_stream(self, name: str) -> None:
        """Delete a stream with all that belongs to it."""
        await self._unless_missing(f"STREAM.DELETE.{quoted(name)}")

    async def purge(self, stream: str, key: str) -> None:
        """Remove the records under ``key``.

        Those of an exact key go by their sequences. If the server purges a subject, a consumer of more than
        that may lose others: what is purged while it is delivered moves the consumer's floor of what is
        acknowledged past earlier records that are not (nats-server issue 5727).
        """
        if key.endswith(">"):
            await self._api.call(f"STREAM.PURGE.{quoted(stream)}", {"filter": codec.subject(stream, key)})
            return
        tried = 0
        while sequence := await self._last(stream, key):
            try:
                request = {"seq": sequence, "no_erase": True}
                await self._api.call(f"STREAM.MSG.DELETE.{quoted(stream)}", request)
            except ApiRefusedError:
                if sequence == tried:  # else another may have removed it just now
                    raise
            tried = sequence

    async def size_bytes(self, stream: str) -> int:
        """How much the stream holds."""
        return int((await self._api.call(f"STREAM.INFO.{quoted(stream)}"))["state"]["bytes"])

    async def trim(self, stream: str, before: float) -> None:
        """Remove records stored before that time that no consumer waits for."""
        name = quoted(stream)
        state = (await self._api.call(f"STREAM.INFO.{name}"))["state"]
        limit = int(state["last_seq"]) + 1
        if not math.isinf(before) and (kept := await self._first_since(stream, before)) is not None:
            limit = min(limit, kept)
        for info in await self._consumer_infos(stream):
            if not info["config"].get("durable_name"):
                continue  # somebody looks on
            limit = await self._awaited(stream, info, limit)
        if limit > int(state["first_seq"]):
            await self._api.call(f"STREAM.PURGE.{name}", {"seq": limit})

    async def _awaited(self, stream: str, info: dict[str, Any], limit: int) -> int:
        """The sequence of the first record that a consumer waits for, ``limit`` at most."""
        start, subjects = ahead_of(info)  # even if the server has not counted yet what was appended just now
        if info["num_ack_pending"]:
            start = int(info["ack_floor"]["stream_seq"]) + 1
        if start >= limit:
            return limit
        requests = ({"seq": start, "next_by_subj": subject} for subject in subjects)
        found = await asyncio.gather(*(self._sequence(stream, request) for request in requests))
        return min([limit, *filter(None, found)])

    async def _first_since(self, stream: str, at: float) -> int | None:
        """The sequence of the first record stored at or after that time, if there is one."""
        request = orjson.dumps({"batch": 1, "start_time": codec.time_text(at)})
        message = await self._api.request(f"$JS.API.DIRECT.GET.{quoted(stream)}", request)
        if message.status is not None or not message.headers:
            return None
        return int(message.headers["Nats-Sequence"])

    # --- records --------------------------------------------------------------------------------------------

    async def append(
        self, stream: str, records: Sequence[Record], *, guard: Guard | None = None
    ) -> list[bool]:
        """Write all of ``records`` or none; per record whether it was new."""
        return await self._appender.append(stream, records, guard)

    async def read(self, stream: str, key: str, *, since: float = 0.0) -> AsyncIterator[Stored]:
        """The records now under ``key``, stored at ``since`` or later, oldest first."""
        newest = await self._newest(stream, key)
        by_key = key.endswith(".>") and stream in self._once_per_key
        sequence = await self._start(stream, since) if since > 0 else 1
        deadline = self._api.deadline()
        while True:
            try:
                page, left = await self._page(stream, key, sequence, by_key=by_key)
            except _TooManyKeysError:
                by_key = False
                continue
            for stored in page:
                if stored.stored_at >= since:
                    yield stored
            if page:
                sequence = page[-1].sequence + 1
                deadline = self._api.deadline()
            if left and page:
                continue
            if sequence > newest or sequence > (newest := await self._newest(stream, key)):
                return
            await self._api.pause(deadline, UnansweredError(f"a copy of stream {stream!r} is behind"))

    async def newest(
        self, stream: str, key: str, limit: int, *, before: int | None = None
    ) -> Sequence[Stored]:
        """The last records now under ``key``, newest first.

        The server reads forwards only. So spans are read, from the last one back: the next is twice as long
        while few are found, and half as long when more are in it than come at once.
        """
        state = (await self._api.call(f"STREAM.INFO.{quoted(stream)}"))["state"]
        first, end = max(1, int(state["first_seq"])), int(state["last_seq"]) + 1
        end = end if before is None else min(end, before)
        found: list[Stored] = []
        limit = min(limit, _READ_AT_ONCE)
        size, span = 0, limit
        while end > first and len(found) < limit:
            start = max(first, end - span)
            part = await self._between(stream, key, start, end, limit)
            if part is None:
                span = max(1, (end - start) // 2)
                continue
            for stored in reversed(part):
                size += len(stored.event.data or b"")
                if len(found) == limit or (found and size > _READ_BYTES):
                    return found
                found.append(stored)
            end, span = start, 2 * span
        return found

    async def _between(self, stream: str, key: str, start: int, end: int, limit: int) -> list[Stored] | None:
        """The records from the sequence ``start`` to below ``end``; ``None`` if they don't come at once."""
        deadline = self._api.deadline()
        while True:
            page, left = await self._page(stream, key, start, limit=limit)
            upto = page[-1].sequence + 1 if page else start
            if left and upto < end:
                return None
            if left or upto >= end or upto > await self._newest(stream, key):
                return [stored for stored in page if stored.sequence < end]
            await self._api.pause(deadline, UnansweredError(f"a copy of stream {stream!r} is behind"))

    async def _start(self, stream: str, since: float) -> int:
        """The sequence to read from, for what was stored at that time or later."""
        state = (await self._api.call(f"STREAM.INFO.{quoted(stream)}"))["state"]
        first = await self._first_since(stream, since)
        return int(state["last_seq"]) + 1 if first is None else first

    async def _newest(self, stream: str, key: str) -> int:
        """The sequence of the newest record under ``key``, where a reader can't take its own word for it."""
        return 0 if self._copies == 1 else await self._last(stream, key)

    async def _last(self, stream: str, key: str) -> int:
        """The sequence of the newest record under ``key`` as the one that leads has it; 0 for none."""
        return await self._sequence(stream, {"last_by_subj": codec.subject(stream, key)})

    async def _sequence(self, stream: str, request: dict[str, Any]) -> int:
        """The sequence of the record that is asked for, as the one that leads has it; 0 for none."""
        try:
            found = await self._api.call(f"STREAM.MSG.GET.{quoted(stream)}", request)
        except ApiRefusedError as refused:
            if refused.code != _NO_MESSAGE:
                raise
            return 0
        return int(found["message"]["seq"])

    async def _page(
        self, stream: str, key: str, sequence: int, *, by_key: bool = False, limit: int = _READ_AT_ONCE
    ) -> tuple[list[Stored], bool]:
        """Some of the records from ``sequence`` on, and whether there are more.

        With ``by_key`` the server looks up which keys there are, the newest record of each, instead of all
        records from the first to the last that match: the same if a key has but one. It does so for 1,024
        keys at most; raises :class:`_TooManyKeysError`.
        """
        deadline = self._api.deadline()
        while True:
            try:
                return await self._try_page(stream, key, sequence, by_key=by_key, limit=limit)
            except UnansweredError as error:
                await self._api.pause(deadline, error)

    async def _try_page(
        self, stream: str, key: str, sequence: int, *, by_key: bool, limit: int
    ) -> tuple[list[Stored], bool]:
        subject = codec.subject(stream, key)
        request = {
            "seq": sequence,
            **({"multi_last": [subject]} if by_key else {"next_by_subj": subject}),
            "batch": limit,
            "max_bytes": _READ_BYTES,
        }
        page: list[Stored] = []
        async with self._api.stream(f"$JS.API.DIRECT.GET.{quoted(stream)}", orjson.dumps(request)) as answers:
            async for message in answers:
                status = message.status
                headers = message.headers
                if status is None:
                    page.append(codec.stored_of_direct(stream, headers, message.lines, message.data))
                elif status == "404":
                    if not by_key or headers.get("Description") == _NOTHING:
                        return [], False
                    if page:
                        return page, True
                    raise UnansweredError("a record was removed while it was to be read")
                elif status == "413":
                    raise _TooManyKeysError(f"too many keys of stream {stream!r} are under {key!r}")
                elif status == "204":
                    return page, int(headers.get("Nats-Num-Pending", "0")) > 0
                elif status == "503":
                    await self._require(stream)
                    raise UnansweredError("JetStream is not ready")
                else:
                    raise EventLogError(f"stream {stream!r} can't be read: {headers.get('Description')}")
        raise UnansweredError("the records did not come whole")

    async def _require(self, stream: str) -> None:
        await self._api.call(f"STREAM.INFO.{quoted(stream)}")

    async def tail(self, stream: str) -> AsyncGenerator[Stored, None]:
        """Each record appended from now on; an outage of the server is waited out."""
        state = (await self._api.call(f"STREAM.INFO.{quoted(stream)}"))["state"]
        last = int(state["last_seq"])
        name = await self._open_tail(stream, last)
        return self._follow(stream, name, last)

    async def _open_tail(self, stream: str, last: int) -> str:
        name = f"tail-{uuid.uuid4().hex}"
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": last + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "inactive_threshold": int(_TAIL_IDLE_SECONDS * 1e9),
        }
        body = {"stream_name": quoted(stream), "config": config, "action": "create"}
        await self._api.call(f"CONSUMER.CREATE.{quoted(stream)}.{name}", body)
        return name

    async def _follow(self, stream: str, name: str, last: int) -> AsyncGenerator[Stored, None]:
        while True:
            puller = Puller(self._api, stream, name)
            try:
                while True:
                    for message in await puller.pull(_TAIL_AT_ONCE):
                        stored = delivery_of(self._api, stream, message).record
                        if stored.sequence > last:
                            last = stored.sequence
                            yield stored
            except ConsumerGoneError:
                pass  # it lived in the memory of a server that was started again
            finally:
                await puller.close()
                await self._unless_missing(f"CONSUMER.DELETE.{quoted(stream)}.{name}", quiet=True)
            name = await self._open_tail(stream, last)

    # --- consumers ------------------------------------------------------------------------------------------

    async def consumer(self, spec: ConsumerSpec, *, keep: bool = False) -> JetStreamConsumer:
        """Create the durable consumer or bring it to ``spec``, and read from it."""
        stream, name = quoted(spec.stream), quoted(spec.name)
        start: dict[str, Any] = {"deliver_policy": "all" if spec.start == "first" else "new"}
        try:
            config = (await self._api.call(f"CONSUMER.INFO.{stream}.{name}"))["config"]
            if keep:
                return JetStreamConsumer(self._api, spec.stream, spec.name)
            # Where it started can't be changed any more.
            start = {item: config[item] for item in _START_FIELDS if item in config}
        except ApiRefusedError as refused:
            if refused.code != CONSUMER_NOT_FOUND:
                raise
        body = {"stream_name": stream, "config": {**_consumer_config(spec), **start}, "action": ""}
        await self._api.call(f"CONSUMER.CREATE.{stream}.{name}", body)
        return JetStreamConsumer(self._api, spec.stream, spec.name)

    async def remove_consumer(self, stream: str, name: str) -> None:
        """Delete a durable consumer."""
        await self._unless_missing(f"CONSUMER.DELETE.{quoted(stream)}.{quoted(name)}")

    async def consumers(self, stream: str) -> list[str]:
        """The names of the durable consumers, sorted."""
        infos = await self._consumer_infos(stream)
        return sorted(unquoted(info["name"]) for info in infos if info["config"].get("durable_name"))

    async def _consumer_infos(self, stream: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = await self._api.call(f"CONSUMER.LIST.{quoted(stream)}", {"offset": len(found)})
            infos = page.get("consumers") or []
            if silent := page.get("missing"):  # in a cluster: they are there, and nobody leads them just now
                raise EventLogError(
                    f"consumers of stream {stream!r} do not answer: {', '.join(silent)[:200]}"
                )
            found.extend(infos)
            if not infos or len(found) >= int(page["total"]):
                break
        if not found:
            await self._require(stream)  # of a stream that is not there, a cluster of servers says just that
        return found

    async def _unless_missing(self, verb: str, *, quiet: bool = False) -> None:
        try:
            await self._api.call(verb)
        except ApiRefusedError as refused:
            if refused.code not in (STREAM_NOT_FOUND, CONSUMER_NOT_FOUND):
                raise
        except EventLogError:
            if not quiet:
                raise


_READ_BYTES = 8 * 1024 * 1024
_START_FIELDS = ("deliver_policy", "opt_start_seq", "opt_start_time")


def _stream_config(spec: StreamSpec, copies: int) -> dict[str, Any]:
    window = spec.duplicate_window_seconds
    if spec.max_age_seconds is not None:
        window = min(window, spec.max_age_seconds)  # what is gone can't be recognised
    return {
        "name": quoted(spec.name),
        "subjects": [codec.subject(spec.name, ">")],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": -1 if spec.max_bytes is None else spec.max_bytes,
        "max_age": int((spec.max_age_seconds or 0) * 1e9),
        "duplicate_window": int(window * 1e9),
        "max_msgs_per_subject": 1 if spec.once_per_key else -1,
        "discard_new_per_subject": spec.once_per_key,
        "allow_direct": True,
        "allow_atomic": True,
        "num_replicas": copies,
    }


def _consumer_config(spec: ConsumerSpec) -> dict[str, Any]:
    return {
        "durable_name": quoted(spec.name),
        "name": quoted(spec.name),
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_wait_seconds * 1e9),
        "max_deliver": -1,
        "max_waiting": 2048,
        "max_ack_pending": spec.max_in_flight,
        "filter_subjects": [codec.subject(spec.stream, key) for key in spec.keys],
        "metadata": {REVISION: spec.revision} if spec.revision else {},
        "num_replicas": 0,
    }
