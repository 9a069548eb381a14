"""What the platform asks of a broker: one protocol, kept by every event log, and held by one contract suite.

A log has named streams of records. A record has a key (tokens joined by ``.``, see
:mod:`torpor.events.names`), an identity by which a second append within the stream's window is recognised,
and an event. Consumers are durable and are named; each record that matches a consumer's keys is delivered to
it until it is acknowledged.

An event is given back as it was appended, but for one thing that no transport of CloudEvents tells apart:
data of no length without a ``datacontenttype``, or with a ``dataref``, may come back as no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from torpor.binding import WireEvent  # noqa: TC001 - a field of a tuple
from torpor.errors import RecordTooLargeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

MAX_APPEND = 10_000
"""Most records of one append."""
MAX_FETCH = 256
"""Most deliveries of one fetch, and most that are under way to a reader.

To take in more at once would keep all else waiting for milliseconds, and how much memory takes what is under
way is known only once it has come.
"""


class Record(NamedTuple):
    """One entry to append.

    ``identity`` makes a repeated append harmless within the stream's duplicate window. Attributes of
    ``spare_bytes`` more, as headers have them, must be small enough as well: what becomes of the event later
    is larger.
    """

    key: str
    identity: str
    event: WireEvent
    spare_bytes: int = 0


def require_size(record: Record, size_bytes: int, most_bytes: int, of: str = "") -> None:
    """Raise :class:`~torpor.errors.RecordTooLargeError` where a record does not leave the room that it is to.

    ``of`` says what it is of that has ``size_bytes``.
    """
    most_bytes -= record.spare_bytes
    if size_bytes > most_bytes:
        has = f"{of} of {size_bytes}" if of else str(size_bytes)
        raise RecordTooLargeError(f"event {record.event.id[:200]!r} has {has} bytes, at most {most_bytes}")


class Stored(NamedTuple):
    """A record as the log holds it.

    ``sequence`` grows along the stream; ``stored_at`` is in seconds since the epoch.
    """

    key: str
    sequence: int
    stored_at: float
    event: WireEvent


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream to have.

    ``once_per_key`` keeps the first record of a key and refuses later ones as duplicates. ``max_age_seconds``
    removes records of that age, delivered or not; a stream whose records must not go unseen has none and is
    trimmed instead. An append that would take the stream over ``max_bytes`` is refused: nothing is dropped to
    make room.
    """

    name: str
    duplicate_window_seconds: float = 600.0
    max_age_seconds: float | None = None
    max_bytes: int | None = None
    once_per_key: bool = False


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets an append happen only while the newest record under ``key`` has that ``sequence``.

    Sequence 0 stands for no record.

    So who appends a record under ``key`` shuts out all that were there before: what they append from then on
    is refused, and what they appended earlier can be read. A duplicate may be told to be one instead.
    """

    key: str
    sequence: int


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable consumer. ``keys`` are exact keys or end in ``.>`` for all below; empty means every record.

    A delivery that is neither acknowledged nor extended within ``ack_wait_seconds`` is made again. Records
    that wait for a retry count against ``max_in_flight`` too. ``start`` says where a consumer that is made by
    this call starts; one that is there already goes on where it was. ``revision`` tells one spec of a
    consumer from another, for those who share it.
    """

    stream: str
    name: str
    keys: tuple[str, ...] = ()
    ack_wait_seconds: float = 10.0
    max_in_flight: int = 256
    start: Literal["first", "next"] = "first"
    revision: str = ""


class Delivery(Protocol):
    """One attempt to have a record handled. Settling it twice has no further effect."""

    @property
    def record(self) -> Stored:
        """The record."""
        ...

    @property
    def attempt(self) -> int:
        """1 at first, one more each time the record is delivered to this consumer again."""
        ...

    async def ack(self) -> None:
        """The record is done with.

        The log is told, and not waited for: when that is lost, with the log or the connection, the record
        is delivered again.
        """
        ...

    async def retry(self, delay_seconds: float) -> None:
        """Deliver the record again after ``delay_seconds``."""
        ...

    async def extend(self) -> None:
        """Work is under way: start the acknowledgement's time anew."""
        ...


class Consumer(Protocol):
    """A durable consumer that this process reads from."""

    async def fetch(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries, as soon as there is one; waits for it as long as it takes.

        More than :data:`MAX_FETCH` never come at once; the rest is asked for with the next call.
        May be cancelled: a delivery that was under way to this reader comes with its next call, whose limit
        is never below :attr:`under_way`. An outage of the broker is waited out.
        """
        ...

    @property
    def under_way(self) -> int:
        """How many deliveries may still come that earlier calls have asked the broker for."""
        ...

    async def pending(self) -> int:
        """How many records wait to be delivered or acknowledged; may be a moment behind what is appended."""
        ...

    async def waiting_since(self) -> float | None:
        """When the oldest record was stored that was never delivered (seconds since the epoch), if one is.

        It is what the consumer is given next; what waits for a retry was begun.
        """
        ...

    async def outstanding(self) -> int:
        """How many records were delivered, to whomever, and are neither acknowledged nor removed.

        Those that wait for a retry are among them. An acknowledgement that was told just now may not have
        been counted yet; a delivery that was made always is.
        """
        ...

    async def revision(self) -> str:
        """The revision of the spec that the durable consumer was brought to last, by whomever."""
        ...

    async def close(self) -> None:
        """Stop reading; the durable consumer stays in the log."""
        ...


class EventLog(Protocol):
    """A broker.

    Every call raises :class:`~torpor.errors.EventLogError` when the broker refuses or can't be reached. A
    call that raised may have taken effect; making it again is harmless, since every call is idempotent (an
    append within the duplicate window).
    """

    @property
    def connected(self) -> bool:
        """Whether the broker was there when it was last heard of."""
        ...

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when a broker that was lost is there again; what is returned ends that."""
        ...

    async def ensure_stream(self, spec: StreamSpec) -> bool:
        """Create the stream, or bring an existing one to ``spec``; its records stay. Whether it is new."""
        ...

    async def streams(self) -> list[str]:
        """The names of all streams, sorted."""
        ...

    async def remove_stream(self, name: str) -> None:
        """Delete a stream, its records and its consumers; nothing happens if there is none."""
        ...

    async def append(
        self, stream: str, records: Sequence[Record], *, guard: Guard | None = None
    ) -> list[bool]:
        """Write all of ``records`` durably or none; per record whether it was new (``False``: a duplicate).

        Duplicates are left out and the rest is written. At most :data:`MAX_APPEND` records. Where a broker
        can't write so many at once, or some are duplicates, an append that raises may have written a part of
        them; making it again writes the rest. Raises :class:`~torpor.errors.RecordTooLargeError` when one is
        over the broker's limit, :class:`~torpor.errors.StreamFullError` when the stream has no room. With a
        ``guard`` it is one record, and :class:`~torpor.errors.SupersededError` says that the guard no longer
        holds.
        """
        ...

    async def consumer(self, spec: ConsumerSpec, *, keep: bool = False) -> Consumer:
        """Create the durable consumer or bring it to ``spec``, and read from it.

        With ``keep``, one that is there stays as it is: somebody else may know better.
        """
        ...

    async def remove_consumer(self, stream: str, name: str) -> None:
        """Delete a durable consumer and its state; nothing happens if there is none."""
        ...

    async def consumers(self, stream: str) -> list[str]:
        """The names of the durable consumers of ``stream``."""
        ...

    def read(self, stream: str, key: str, *, since: float = 0.0) -> AsyncIterator[Stored]:
        """The records that the stream holds now under ``key`` (exact, or ending in ``.>``), oldest first.

        With ``since`` those stored then or later (seconds since the epoch), without a look at all before.
        """
        ...

    async def newest(
        self, stream: str, key: str, limit: int, *, before: int | None = None
    ) -> Sequence[Stored]:
        """The last records that the stream holds now under ``key`` (exact, or ending in ``.>``), backwards.

        With ``before`` of those below that sequence. At most ``limit``, and fewer where these are too much at
        once (8 MiB); none only if there are none. However many are older, they are not read.
        """
        ...

    async def tail(self, stream: str) -> AsyncGenerator[Stored, None]:
        """Each record appended after the return of this call, until the iterator is closed."""
        ...

    async def size_bytes(self, stream: str) -> int:
        """How much the stream holds, as it counts against ``max_bytes``; may be a moment behind."""
        ...

    async def trim(self, stream: str, before: float) -> None:
        """Remove records stored before that time (seconds since the epoch) that no consumer waits for.

        Infinity stands for the end of all time.
        """
        ...

    async def purge(self, stream: str, key: str) -> None:
        """Remove the records under ``key`` (exact, or ending in ``.>``).

        What a consumer is working on may be among them only if the key is exact, or all that the consumer
        reads is under it.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; what is stored stays."""
        ...


async def oldest(log: EventLog, stream: str, key: str) -> Stored | None:
    """The oldest record that the stream holds under ``key``, if any. Raises ``EventLogError``."""
    async for stored in log.read(stream, key):
        return stored
    return None


class Passed:
    """A delivery as it is passed on: what a subclass does not change is done to the delivery itself.

    Keeps :class:`Delivery`.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    @property
    def record(self) -> Stored:
        """The record."""
        return self._delivery.record

    @property
    def attempt(self) -> int:
        """How often it was delivered."""
        return self._delivery.attempt

    async def ack(self) -> None:
        """The record is done with."""
        await self._delivery.ack()

    async def retry(self, delay_seconds: float) -> None:
        """Deliver it again."""
        await self._delivery.retry(delay_seconds)

    async def extend(self) -> None:
        """Work is under way."""
        await self._delivery.extend()
