"""How records, and what is done to them, are written as Kafka messages and read again. Pure.

One append is one message, so that Kafka writes all of it or nothing; many small ones may share one. A single
record is written in the binary mode of the CloudEvents Kafka protocol binding (attributes are headers
``ce_<name>``, data is the value), so that other programs can read a broker's events; several records go into
one message of Torpor's own form, since that binding has no batches. Everything else in a topic has the header
``torpor-do``.

A record's sequence is the offset of its message and its place in it, so sequences grow along the stream.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from torpor.binding import WireEvent
from torpor.errors import EventLogError, RecordTooLargeError
from torpor.events.log import Guard, Record, Stored, require_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Headers = list[tuple[str, bytes]]
Head = tuple[str, bytes, int]

PLACE_BITS = 14  # MAX_APPEND is less than 2**14
MAX_RECORD_BYTES = 8 * 1024 * 1024
MAX_MESSAGE_BYTES = MAX_RECORD_BYTES + 1024 * 1024
BATCH_RECORDS = 1000
BATCH_BYTES = 4 * 1024 * 1024
_MAX_ATTRIBUTES_BYTES = 512 * 1024
_BATCH_TYPE = b"application/vnd.torpor.records"
BATCH: Headers = [("content-type", _BATCH_TYPE)]
"""The headers of a message of several records."""
_KEY, _IDENTITY, _GUARD, _DO = "torpor-key", "torpor-identity", "torpor-guard", "torpor-do"
_PREFIX = "ce_"
_TYPE = "content-type"
_NOT_OURS = (LookupError, ValueError, TypeError, AttributeError)
"""What comes of reading a message that others wrote: headers may have no value, and JSON may be anything."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What one message of a stream appends, if nothing of it turns out to be a duplicate.

    ``heads`` has the key, the :func:`digest` of the identity and the size of each record; ``record`` makes
    the one at a place: not every process wants each.
    """

    heads: Sequence[Head]
    record: Callable[[int], Record]
    guard: Guard | None = None

    @property
    def size(self) -> int:
        """The size of all records together, in bytes."""
        return sum([size for _, _, size in self.heads])

    def all(self) -> list[Record]:
        """All records."""
        return [self.record(place) for place in range(len(self.heads))]

    def records(self) -> Records:
        """The records alone."""
        return Records(len(self.heads), self.size, self.record)

    def without(self, known: Sequence[bool]) -> Appended:
        """Those of which that is not true."""
        places = [place for place, is_known in enumerate(known) if not is_known]
        kept = [self.record(place) for place in places]  # and nothing of the others
        return Appended([self.heads[place] for place in places], kept.__getitem__, self.guard)


class Records(NamedTuple):
    """So many records of a message, about how many bytes they are together, and the one at a place."""

    total: int
    size: int
    record: Callable[[int], Record]


@dataclass(frozen=True, slots=True)
class Purged:
    """The records under ``key`` are removed."""

    key: str


@dataclass(frozen=True, slots=True)
class Trimmed:
    """The records below that sequence are removed."""

    before: int


def sequence_of(offset: int, place: int = 0) -> int:
    """The sequence of the record at ``place`` of the message at ``offset``; 0 is none's."""
    return offset << PLACE_BITS | place + 1


def offset_of(sequence: int) -> int:
    """The offset of the message that holds the record."""
    return sequence >> PLACE_BITS


def place_of(sequence: int) -> int:
    """The record's place in its message."""
    return (sequence & (1 << PLACE_BITS) - 1) - 1


def digest(identity: str) -> bytes:
    """What an identity is known by: it may be long, and there are many."""
    return hashlib.blake2b(_bytes(identity), digest_size=16).digest()


def _texts_bytes(key: str, identity: str, attributes: dict[str, str]) -> int:
    """The size of all but the data; characters count, since most are ASCII."""
    return len("".join((key, identity, *attributes, *attributes.values())))


def head(record: Record) -> Head:
    """The head of a record: its size is what it counts against its stream's ``max_bytes``.

    Raises :class:`~torpor.errors.RecordTooLargeError`.
    """
    key, identity, (attributes, data), _ = record
    texts = size = _texts_bytes(key, identity, attributes)
    if data is not None:
        size += len(data)
    require_size(record, size, MAX_RECORD_BYTES)
    require_size(record, texts, _MAX_ATTRIBUTES_BYTES, "attributes")
    return key, digest(identity), size


def appends(records: Sequence[Record], guard: Guard | None = None) -> list[Appended]:
    """``records`` in their order, so that each part fits into one message.

    Raises :class:`~torpor.errors.RecordTooLargeError`.
    """
    heads = list(map(head, records))
    ends, start, held = [], 0, 0
    for place, (_, _, size) in enumerate(heads):
        if place - start == BATCH_RECORDS or (place > start and held + size > BATCH_BYTES):
            ends.append(place)
            start, held = place, 0
        held += size
    if records:
        ends.append(len(records))
    return [
        Appended(heads[start:end], records[start:end].__getitem__, guard)
        for start, end in pairwise((0, *ends))
    ]


def encode(
    records: Sequence[Record], guard: Guard | None = None, *, single: bool = True
) -> tuple[Headers, bytes | None]:
    """The headers and the value of a message that appends; with ``single``, one record in binary mode."""
    headers: Headers = []
    if guard is not None:
        headers.append((_GUARD, f"{guard.sequence} {guard.key}".encode()))
    if len(records) != 1 or not single:
        return [*headers, *BATCH], _packed(records)
    [record] = records
    headers += [(_KEY, record.key.encode()), (_IDENTITY, _bytes(record.identity))]
    for name, value in record.event.attributes.items():
        headers.append((_TYPE if name == "datacontenttype" else _PREFIX + name, _bytes(value)))
    return headers, record.event.data


def encode_change(change: Purged | Trimmed) -> tuple[Headers, bytes]:
    """The headers and the value of a message that removes records."""
    if isinstance(change, Purged):
        return [(_DO, b"purge")], change.key.encode()
    return [(_DO, b"trim")], str(change.before).encode()


def decode(headers: Headers | None, value: bytes | None) -> Appended | Purged | Trimmed:
    """What a message says. Raises :class:`~torpor.errors.EventLogError` when it is none of Torpor's."""
    texts = dict(headers or ())
    try:
        if (verb := texts.get(_DO)) is not None:
            return Purged((value or b"").decode()) if verb == b"purge" else Trimmed(int(value or b""))
        guard = _guard(texts.get(_GUARD))
        if _is_batch(texts):
            batch = _Batch(value or b"")
            return Appended(batch.heads(), batch.record, guard)
        record = _single(headers or (), texts, value)
        return Appended([head(record)], (record,).__getitem__, guard)
    except (*_NOT_OURS, RecordTooLargeError) as error:
        raise EventLogError(f"a message in Kafka is not of Torpor's form: {error!r}") from error


def decode_records(headers: Headers | None, value: bytes | None) -> Records | None:
    """The records of a message alone, for who knows the rest; ``None`` if it is of others or appends none."""
    texts = dict(headers or ())
    try:
        if _DO in texts:
            return None
        if _is_batch(texts):
            batch = _Batch(value or b"")
            return Records(len(batch.entries), len(value or b""), batch.record)
        size = sum(map(len, texts.values())) + len(value or b"")
        return Records(1, size, (_single(headers or (), texts, value),).__getitem__)
    except _NOT_OURS:
        return None


def _is_batch(texts: dict[str, bytes]) -> bool:
    return texts.get(_TYPE) == _BATCH_TYPE and _KEY not in texts


def _single(headers: Iterable[tuple[str, bytes]], texts: dict[str, bytes], value: bytes | None) -> Record:
    key, identity = texts[_KEY].decode(), _text(texts[_IDENTITY])
    attributes: dict[str, str] = {}
    for name, raw in headers:
        if name[:3] == _PREFIX:
            attributes[sys.intern(name[3:])] = _text(raw)
        elif name == _TYPE:
            attributes["datacontenttype"] = _text(raw)
    return Record(key, identity, WireEvent(attributes, value))


def stored(record: Record, sequence: int, at: float) -> Stored:
    """The record as the log holds it."""
    return Stored(record.key, sequence, at, record.event)


def dumps(document: Any) -> bytes:
    """JSON, for what is no record."""
    return orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)


def loads(value: bytes | None) -> Any:
    """The contrary of :func:`dumps`. Raises :class:`~torpor.errors.EventLogError`."""
    try:
        return orjson.loads(value or b"")
    except orjson.JSONDecodeError as error:
        raise EventLogError(f"a message in Kafka is not of Torpor's form: {error}") from error


def _guard(raw: bytes | None) -> Guard | None:
    if raw is None:
        return None
    sequence, _, key = raw.decode().partition(" ")
    return Guard(key, int(sequence))


def _packed(records: Sequence[Record]) -> bytes:
    """The length of a JSON list that has everything but data (4 bytes), the list, and all data."""
    entries, parts = [], []
    for record in records:
        data = record.event.data
        entries.append(
            [record.key, record.identity, record.event.attributes, None if data is None else len(data)]
        )
        parts.append(data or b"")
    head = orjson.dumps(entries)
    return b"".join((len(head).to_bytes(4, "big"), head, *parts))


_Entry = tuple[str, str, dict[str, str], int | None]


def _is_entry(entry: Any) -> bool:
    key, identity, attributes, length = entry
    texts = (key, identity, *attributes.values())
    return set(map(type, texts)) == {str} and (length is None or (type(length) is int and length >= 0))


class _Batch:
    """A message of several records, as :func:`_packed` makes it. Raises ``ValueError`` for any other."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        start = 4 + int.from_bytes(value[:4], "big")
        self.entries: list[_Entry] = orjson.loads(value[4:start])
        if len(self.entries) >> PLACE_BITS or not all(map(_is_entry, self.entries)):
            raise ValueError("these are no records")
        self._starts = list(accumulate([length or 0 for _, _, _, length in self.entries], initial=start))
        if self._starts[-1] != len(value):
            raise ValueError(f"{len(value)} bytes, {self._starts[-1]} were expected")

    def heads(self) -> list[Head]:
        """The heads of its records."""
        return [
            (key, digest(identity), _texts_bytes(key, identity, attributes) + (length or 0))
            for key, identity, attributes, length in self.entries
        ]

    def record(self, place: int) -> Record:
        """The record at a place."""
        key, identity, attributes, length = self.entries[place]
        start = self._starts[place]
        data = None if length is None else self._value[start : start + length]
        return Record(key, identity, WireEvent(attributes, data))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
