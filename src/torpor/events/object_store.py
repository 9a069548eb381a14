"""Large objects in NATS JetStream, streamed in and out in chunks: the NATS Object Store's layout (ADR-20).

An object is a run of chunks under a name of its own (``$O.<bucket>.C.<nuid>``), and one entry that says so
(``$O.<bucket>.M.<base64 of the object's name>``): without it there is no object, so half an upload is none.
The first entry of a name stays; whoever brings the same object again finds it there. Chunks whose entry never
came, since their writer was killed, are swept later.

Chunks are written one after the other, each acknowledged before the next, so that a broken connection can't
change their order.
"""

from __future__ import annotations

import base64
import hashlib
import math
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from torpor.errors import EventLogError
from torpor.events import jetstream_codec as codec
from torpor.events.jetstream_api import (
    STREAM_NOT_FOUND,
    ApiRefusedError,
    NobodyThereError,
    UnansweredError,
    answer_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.events.jetstream_api import Api
    from torpor.events.nats_client import Heard

CHUNK_BYTES = 256 * 1024
"""Size of a chunk: well below the smallest limit of a message that servers have by default, 1 MiB."""
_CHUNKS_AT_ONCE = 8
_ENTRIES_AT_ONCE = 256
_WRONG_LAST_SEQUENCE = 10071
_NO_MESSAGE = 10037
_TYPE = "Content-Type"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the bucket says of one object.

    ``run`` names its chunks, ``since`` is when the entry was written.
    """

    name: str
    run: str
    size_bytes: int
    chunks: int
    digest: str
    content_type: str | None
    since: float = 0.0
    sequence: int = 0
    """Of the entry in the bucket's stream; 0: it was not read from there."""


class Writer:
    """One object on its way into the bucket: chunks of at most :data:`CHUNK_BYTES`, then an end."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._run = uuid.uuid4().hex
        self._chunks = 0
        self._size_bytes = 0
        self._finishing = False

    async def write(self, chunk: bytes) -> None:
        """Write the next chunk."""
        subject = self._store.chunk_subject(self._run)
        await self._store.publish(subject, chunk, {codec.MESSAGE_ID: f"{self._run}.{self._chunks}"})
        self._chunks += 1
        self._size_bytes += len(chunk)

    async def finish(self, name: str, digest: bytes, content_type: str | None) -> None:
        """Make what was written the object ``name``, unless there is one, which then stays as it is."""
        # From here on it may be an object, even if no answer says so: then it must not lose its chunks.
        self._finishing = True
        entry = Entry(name, self._run, self._size_bytes, self._chunks, _text(digest), content_type)
        if not await self._store.enter(entry) and self._chunks:
            await self._store.forget(self._run)

    async def give_up(self) -> None:
        """Remove what was written, if it can't have become an object."""
        if self._chunks and not self._finishing:
            await self._store.forget(self._run)


class ObjectStore:
    """One bucket, on as many servers of a cluster as ``copies`` says.

    Every method raises :class:`~torpor.errors.EventLogError`.
    """

    def __init__(self, api: Api, bucket: str, copies: int = 1) -> None:
        self._api = api
        self._copies = copies
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"

    def chunk_subject(self, run: str) -> str:
        """The subject of the chunks of one object."""
        return f"$O.{self._bucket}.C.{run}"

    def writer(self) -> Writer:
        """Begin an object."""
        return Writer(self)

    async def ensure(self) -> None:
        """Have the bucket."""
        config = {
            "name": self._stream,
            "subjects": [f"$O.{self._bucket}.C.>", f"$O.{self._bucket}.M.>"],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "num_replicas": self._copies,
        }
        try:
            await self._api.call(f"STREAM.UPDATE.{self._stream}", config)
        except ApiRefusedError as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise
            await self._api.call(f"STREAM.CREATE.{self._stream}", config)

    # --- writing --------------------------------------------------------------------------------------------

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        """Write one message durably, however often that takes within an outage."""
        deadline = self._api.deadline()
        while True:
            try:
                answer_of(await self._api.answer(await self._api.post(subject, payload, headers)))
            except UnansweredError as error:
                if isinstance(error, NobodyThereError):
                    await self.ensure()
                await self._api.pause(deadline, error)
            else:
                return

    async def enter(self, entry: Entry) -> bool:
        """Write the entry if its name has none; whether the one that is there now is this one."""
        try:
            await self._write_entry(entry, after=0)
        except ApiRefusedError as refused:
            if refused.code != _WRONG_LAST_SEQUENCE:
                raise
            # It may be this very one, if its first answer was lost.
            there = await self.find(entry.name)
            return there is not None and there.run == entry.run
        return True

    async def renew(self, entry: Entry) -> bool:
        """Have an object that was found be as new; whether it was still as it was found."""
        try:
            await self._write_entry(entry, after=entry.sequence)
        except ApiRefusedError as refused:
            if refused.code != _WRONG_LAST_SEQUENCE:
                raise
            return False
        return True

    async def _write_entry(self, entry: Entry, after: int) -> None:
        """Write the entry if the newest one of its name has the sequence ``after``, and in its place."""
        document = {
            "name": entry.name,
            "bucket": self._bucket,
            "nuid": entry.run,
            "size": entry.size_bytes,
            "chunks": entry.chunks,
            "digest": entry.digest,
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        if entry.content_type:
            document["headers"] = {_TYPE: [entry.content_type]}
        headers = {"Nats-Expected-Last-Subject-Sequence": str(after), "Nats-Rollup": "sub"}
        await self.publish(self._entry_subject(entry.name), orjson.dumps(document), headers)

    async def rename(self, name: str, target: str) -> None:
        """Give an object another name, as of now; if there is one of that name, that one stays."""
        entry = await self.find(name)
        if entry is None:
            return
        if not await self.enter(replace(entry, name=target)):
            there = await self.find(target)
            if there is None or not await self.renew(there):
                raise EventLogError(f"object {target!r} was changed by another process")
        await self._remove_entry(name)
        await self._forget_unnamed(entry.run, target)

    async def remove(self, name: str, twin: str) -> None:
        """Remove an object; ``twin`` may be another name of it, under which it stays."""
        entry = await self.find(name)
        if entry is not None:
            await self._remove_entry(name)
            await self._forget_unnamed(entry.run, twin)

    async def _remove_entry(self, name: str) -> None:
        """Remove an entry, and leave its chunks."""
        await self._api.call(f"STREAM.PURGE.{self._stream}", {"filter": self._entry_subject(name)})

    async def _forget_unnamed(self, run: str, name: str) -> None:
        there = await self.find(name)
        if there is None or there.run != run:
            await self.forget(run)

    async def forget(self, run: str) -> None:
        """Remove the chunks of one object."""
        await self._api.call(f"STREAM.PURGE.{self._stream}", {"filter": self.chunk_subject(run)})

    # --- reading --------------------------------------------------------------------------------------------

    async def find(self, name: str) -> Entry | None:
        """The entry of that name. Asked of the stream's leader, so that it has what was just written."""
        return await self._newest(self._entry_subject(name))

    async def _newest(self, subject: str) -> Entry | None:
        try:
            found = await self._api.call(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": subject})
        except ApiRefusedError as refused:
            if refused.code in (_NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        message = found["message"]
        return _entry(
            base64.b64decode(message.get("data", "")),
            since=codec.seconds_of(message["time"]),
            sequence=int(message["seq"]),
        )

    async def entries(self) -> AsyncIterator[Entry]:
        """All objects, in the order in which their entries were written."""
        sequence, deadline = 1, self._api.deadline()
        while True:
            try:
                page = await self._page(f"$O.{self._bucket}.M.>", sequence, _ENTRIES_AT_ONCE)
            except UnansweredError as error:
                await self._api.pause(deadline, error)
                continue
            if not page:
                return
            deadline = self._api.deadline()
            for message in page:
                headers = message.headers
                sequence = int(headers["Nats-Sequence"])
                since = codec.seconds_of(headers["Nats-Time-Stamp"])
                entry = _entry(message.data, since=since, sequence=sequence)
                if entry is not None:
                    yield entry
            sequence += 1

    async def read(self, entry: Entry) -> AsyncIterator[bytes]:
        """The chunks of an object; raises before the last one where they are not what was written."""
        digest = hashlib.sha256()
        sequence, held, count = 1, b"", 0
        deadline = self._api.deadline()
        while count < entry.chunks:
            try:
                page = await self._page(self.chunk_subject(entry.run), sequence, _CHUNKS_AT_ONCE)
            except UnansweredError as error:
                await self._api.pause(deadline, error)
                continue
            if not page:  # a replica of the stream that is behind, or they are gone
                await self._api.pause(deadline, UnansweredError("chunks are missing"))
                continue
            deadline = self._api.deadline()
            for message in page:
                if held:
                    yield held
                held = message.data
                digest.update(held)
                count += 1
            sequence = int(page[-1].headers["Nats-Sequence"]) + 1
        if count != entry.chunks or _text(digest.digest()) != entry.digest:
            raise EventLogError(f"object {entry.name!r} is damaged: its bytes are not those that were stored")
        if held:
            yield held

    async def _page(self, subject_filter: str, sequence: int, most: int) -> list[Heard]:
        request = {"seq": sequence, "next_by_subj": subject_filter, "batch": most}
        page: list[Heard] = []
        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        async with self._api.stream(subject, orjson.dumps(request)) as answers:
            async for message in answers:
                status = message.status
                if status is None:
                    page.append(message)
                elif status in ("204", "404"):
                    return page
                else:
                    raise UnansweredError(f"JetStream answered {status}")
        raise UnansweredError("not all of it came")

    # --- what writers left behind ---------------------------------------------------------------------------

    async def sweep(self, before: float) -> int:
        """Remove chunks that no entry names, the last of them older than that time; how many runs it was."""
        runs = [subject.rpartition(".")[2] for subject in await self._subjects("C")]
        named = {entry.run async for entry in self.entries()}
        old = [run for run in runs if run not in named and await self._last_written(run) < before]
        if old:
            # The copy of the stream that told the entries may be behind; the one that leads has the say.
            subjects = await self._subjects("M")
            sure = [await self._newest(subject) for subject in subjects]
            old = sorted(set(old) - {entry.run for entry in sure if entry is not None})
        for run in old:
            await self.forget(run)
        return len(old)

    async def _subjects(self, kind: str) -> list[str]:
        found: list[str] = []
        while True:
            body = {"subjects_filter": f"$O.{self._bucket}.{kind}.>", "offset": len(found)}
            info: dict[str, Any] = await self._api.call(f"STREAM.INFO.{self._stream}", body)
            page = info["state"].get("subjects") or {}
            found += page
            if not page or len(found) >= int(info.get("total", 0)):
                return found

    async def _last_written(self, run: str) -> float:
        request = {"last_by_subj": self.chunk_subject(run)}
        try:
            found = await self._api.call(f"STREAM.MSG.GET.{self._stream}", request)
        except ApiRefusedError as refused:
            if refused.code != _NO_MESSAGE:
                raise
            return math.inf  # its writer gave it up in the meantime
        return codec.seconds_of(found["message"]["time"])

    def _entry_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _text(digest: bytes) -> str:
    return "SHA-256=" + base64.urlsafe_b64encode(digest).decode()


def _entry(raw: bytes, since: float, sequence: int) -> Entry | None:
    document: dict[str, Any] = orjson.loads(raw or b"{}")
    if not document or document.get("deleted"):
        return None
    types = (document.get("headers") or {}).get(_TYPE) or [None]
    return Entry(
        name=document["name"],
        run=document["nuid"],
        size_bytes=int(document["size"]),
        chunks=int(document["chunks"]),
        digest=document["digest"],
        content_type=types[0],
        since=since,
        sequence=sequence,
    )
