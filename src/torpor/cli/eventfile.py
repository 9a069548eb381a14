"""Events as files have them: one JSON document, an array, or one a line; and how many go together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.binding import decode_batch, decode_structured
from torpor.errors import MalformedEventError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from torpor.binding import WireEvent

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
MAX_BATCH_EVENTS = 100
MAX_BATCH_BYTES = 512 * 1024


def read_events(file: IO[bytes]) -> Iterator[WireEvent]:
    """The events of ``file``, read as far as they are asked for when there is one a line.

    Raises :class:`~torpor.errors.MalformedEventError` that names the line, or the event of an array, at
    fault.
    """
    number, first = _first_line(file)
    first = first.rstrip()
    if not first:
        return
    if first.lstrip().startswith(b"["):
        yield from decode_batch(_whole(first, file))
        return
    try:
        event = decode_structured(first)
    except MalformedEventError as error:
        # Not an event on one line: then it is one over many lines, or what is wrong is on this line.
        rest = _whole(first, file)
        if rest.strip() == first.strip() or first.rstrip().endswith(b"}"):
            raise MalformedEventError(f"line {number}: {error}") from None
        yield decode_structured(rest)
        return
    yield event
    yield from _lines(file, number)


def batches(events: Iterable[WireEvent]) -> Iterator[list[WireEvent]]:
    """``events`` in their order, in lists small enough to be sent as one.

    An event that is larger than a batch may be goes alone. Where ``events`` raises, the ones before come
    first.
    """
    batch: list[WireEvent] = []
    batch_bytes = 0
    try:
        for event in events:
            event_bytes = _size(event)
            if batch and (len(batch) >= MAX_BATCH_EVENTS or batch_bytes + event_bytes > MAX_BATCH_BYTES):
                yield batch
                batch, batch_bytes = [], 0
            batch.append(event)
            batch_bytes += event_bytes
    except MalformedEventError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _size(event: WireEvent) -> int:
    attributes = sum(len(name) + len(value) + 6 for name, value in event.attributes.items())
    return attributes + len(event.data or b"")


def _first_line(file: IO[bytes]) -> tuple[int, bytes]:
    number = 0
    while line := _line(file, number + 1):
        number += 1
        if line.strip():
            return number, line
    return number, b""


def _line(file: IO[bytes], number: int) -> bytes:
    line = file.readline(MAX_DOCUMENT_BYTES + 1)
    if len(line) > MAX_DOCUMENT_BYTES:
        raise MalformedEventError(f"line {number}: has more than {MAX_DOCUMENT_BYTES} bytes")
    return line


def _whole(first: bytes, file: IO[bytes]) -> bytes:
    whole = first + b"\n" + file.read(MAX_DOCUMENT_BYTES + 1)
    if len(whole) > MAX_DOCUMENT_BYTES:
        raise MalformedEventError(
            f"one document is larger than {MAX_DOCUMENT_BYTES} bytes; write one event a line"
        )
    return whole


def _lines(file: IO[bytes], number: int) -> Iterator[WireEvent]:
    while line := _line(file, number + 1):
        number += 1
        if not line.strip():
            continue
        try:
            yield decode_structured(line.rstrip())
        except MalformedEventError as error:
            raise MalformedEventError(f"line {number}: {error}") from None
