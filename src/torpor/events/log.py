"""What the platform asks of a broker: one protocol, kept by every event log, and held by one contract suite.

A log has named streams of records. A record has a key (a path of tokens joined by ``.``), an identity by which a second
append within the stream's window is recognised, and an event. Consumers are durable and are named; each record that
matches a consumer's keys is delivered to it until it is acknowledged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torpor.binding import WireEvent


@dataclass(frozen=True, slots=True)
class Record:
    """One entry to append. ``identity`` makes a repeated append harmless within the stream's duplicate window."""

    key: str
    identity: str
    event: WireEvent


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as the log holds it. ``sequence`` grows along the stream; ``stored_at`` is in seconds since the epoch."""

    key: str
    sequence: int
    stored_at: float
    event: WireEvent


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream to have. ``once_per_key`` keeps the first record of a key and refuses later ones as duplicates."""

    name: str
    duplicate_window_seconds: float = 600.0
    max_age_seconds: float | None = None
    once_per_key: bool = False


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable consumer. ``keys`` are exact keys or end in ``.>`` for all below; empty means every record.

    A delivery that is neither acknowledged nor extended within ``ack_wait_seconds`` is made again.
    """

    stream: str
    name: str
    keys: tuple[str, ...] = ()
    ack_wait_seconds: float = 10.0
    max_in_flight: int = 256


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
        """The record is done with; returns when the log has taken that in durably."""
        ...

    async def retry(self, delay_seconds: float) -> None:
        """Deliver the record again after ``delay_seconds``."""
        ...

    async def extend(self) -> None:
        """Work is under way: start the acknowledgement's time anew."""
        ...


class Consumer(Protocol):
    """A durable consumer that this process reads from."""

    async def fetch(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries, as soon as there is one; none when ``wait_seconds`` pass without any."""
        ...

    async def pending(self) -> int:
        """How many records wait to be delivered or acknowledged."""
        ...

    async def close(self) -> None:
        """Stop reading; the durable consumer stays in the log."""
        ...


class EventLog(Protocol):
    """A broker. Every call raises :class:`~torpor.errors.EventLogError` when the broker refuses or can't be reached."""

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream, or bring an existing one to ``spec``; its records stay."""
        ...

    async def append(self, stream: str, records: Sequence[Record]) -> list[bool]:
        """Write all of ``records`` durably or none; per record whether it was new (``False``: a duplicate).

        Raises :class:`~torpor.errors.RecordTooLargeError` when one is over the broker's limit.
        """
        ...

    async def consumer(self, spec: ConsumerSpec) -> Consumer:
        """Create or update the durable consumer, and read from it; a new one starts at the stream's beginning."""
        ...

    async def remove_consumer(self, stream: str, name: str) -> None:
        """Delete a durable consumer and its state; nothing happens if there is none."""
        ...

    async def consumers(self, stream: str) -> list[str]:
        """The names of the durable consumers of ``stream``."""
        ...

    def read(self, stream: str, key: str) -> AsyncIterator[Stored]:
        """The records that the stream holds now under ``key`` (exact, or ending in ``.>``), oldest first."""
        ...

    def tail(self, stream: str) -> AsyncIterator[Stored]:
        """Each record appended from now on, until the iterator is closed."""
        ...

    async def purge(self, stream: str, key: str) -> None:
        """Remove the records under ``key`` (exact, or ending in ``.>``)."""
        ...

    async def close(self) -> None:
        """Let go of the connection; what is stored stays."""
        ...
