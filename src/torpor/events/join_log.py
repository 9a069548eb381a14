"""What a joining trigger keeps in the event log.

Three things are there, so that neither a crash of the process nor a late duplicate changes what a group
becomes:

- a *part* (``part.<group>.<index>``, the first of its index counts);
- the group's *ending* (``ready.<group>``, the first counts): whole, partial or expired. It is what gets
  delivered, by the same machinery as any event, with the parts that were stored before it;
- after that a *mark* in another stream, for :data:`MARK_SECONDS`: the group was dealt with, when it ended and
  with which parts.

A group's parts and ending are removed once the mark is there. A dead letter of the group that is replayed
after that opens the group anew: the mark goes, and parts and ending are as of a group that never was.

One process joins a trigger at a time. That does not hang on anybody's clock: whoever begins appends a *turn*
(``turn.<unique>``), and parts and endings are appended only while that is the newest. So a process that was
superseded, and doesn't know it yet, can write nothing that its successor has not read.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import orjson

from torpor.binding import WireEvent
from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.join import Part, part_of
from torpor.events.log import ConsumerSpec, EventLog, Guard, Record, StreamSpec, oldest
from torpor.events.subscription import ACK_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

MARK_SECONDS = 7 * 86_400.0
"""How long a late duplicate of a part is recognised after its group was dealt with."""
_PART, _READY, _TURN = "part", "ready", "turn"
_TYPE = "dev.torpor.join."


def streams(trigger_key: str, max_bytes: int) -> list[StreamSpec]:
    """The streams that a joining trigger needs; its groups hold ``max_bytes`` at most."""
    return [
        StreamSpec(names.groups_stream(trigger_key), once_per_key=True, max_bytes=max_bytes),
        StreamSpec(names.DONE, once_per_key=True, max_age_seconds=MARK_SECONDS),
    ]


def endings_spec(trigger_key: str) -> ConsumerSpec:
    """The durable consumer of a joining trigger's groups that have ended."""
    return ConsumerSpec(
        names.groups_stream(trigger_key),
        "endings",
        keys=(f"{_READY}.>",),
        ack_wait_seconds=ACK_WAIT_SECONDS,
        max_in_flight=10_000,
    )


def ending_of(event: WireEvent) -> tuple[str, str, str]:
    """The group that an ending or a mark is of, how it ended, and why."""
    return event.attributes["subject"], event.type.removeprefix(_TYPE), event.attributes["reason"]


class JoinLog:
    """The parts, endings, marks and turns of one trigger. Every call may raise ``EventLogError``."""

    def __init__(self, log: EventLog, trigger_key: str, max_bytes: int) -> None:
        self._log = log
        self._key = trigger_key
        self._max_bytes = max_bytes
        self._stream = names.groups_stream(trigger_key)
        self._guard: Guard | None = None

    async def open(self) -> None:
        """Have the streams, and shut out whoever joined this trigger before."""
        for stream in streams(self._key, self._max_bytes):
            await self._log.ensure_stream(stream)
        self._guard = await self._take_turn()

    async def _take_turn(self) -> Guard:
        key = f"{_TURN}.{uuid.uuid4().hex}"
        await self._log.append(self._stream, [Record(key, key, self._event(key, _TURN))])
        guard: Guard | None = None
        earlier: list[str] = []
        async for stored in self._log.read(self._stream, f"{_TURN}.>"):
            if stored.key == key:
                guard = Guard(f"{_TURN}.>", stored.sequence)
            elif guard is None:
                earlier.append(stored.key)
        if guard is None:
            raise EventLogError(f"the turn at {self._stream} was not stored")
        for each in earlier:
            await self._log.purge(self._stream, each)
        return guard

    # --- what is written ------------------------------------------------------------------------------------

    async def add_part(self, part: Part, sequence: int, event: WireEvent) -> None:
        """Store a part, which the broker's stream has at ``sequence``. Raises ``SupersededError``."""
        key = _key_of(part)
        await self._append(key, f"{key}:{sequence}", event)

    async def add_ending(self, group: str, how: str, reason: str) -> bool:
        """Store how the group ends; whether that was not decided before. Raises ``SupersededError``."""
        event = self._event(names.identity(self._key, group), how, subject=group, reason=reason)
        return await self._append(f"{_READY}.{names.token(group)}", uuid.uuid4().hex, event)

    async def add_mark(self, ending: WireEvent, at: float, indexes: Sequence[int]) -> None:
        """Store that a group, which ended then with these parts, was dealt with."""
        attributes = {**ending.attributes, "datacontenttype": "application/json", "endedat": repr(at)}
        mark = WireEvent(attributes, orjson.dumps(indexes))
        record = Record(self._mark_key(ending_of(ending)[0]), uuid.uuid4().hex, mark)
        await self._log.append(names.DONE, [record])

    async def remove_mark(self, group: str) -> None:
        """Forget that the group was dealt with."""
        await self._log.purge(names.DONE, self._mark_key(group))

    async def clear(self, group: str) -> None:
        """Remove the group's parts, and then its ending."""
        await self._log.purge(self._stream, f"{_PART}.{names.token(group)}.>")
        await self._log.purge(self._stream, f"{_READY}.{names.token(group)}")

    async def _append(self, key: str, identity: str, event: WireEvent) -> bool:
        """Append while it is this process' turn; whether it was new.

        That the first record of a key counts is what makes it one; the identity is its own, since a key may
        come again after it was removed.
        """
        [new] = await self._log.append(self._stream, [Record(key, identity, event)], guard=self._guard)
        return new

    def _event(self, event_id: str, what: str, **more: str) -> WireEvent:
        source = f"/trigger/{self._key}"
        return WireEvent(
            {"specversion": "1.0", "id": event_id, "source": source, "type": _TYPE + what, **more}, None
        )

    # --- what is there --------------------------------------------------------------------------------------

    async def size_bytes(self) -> int:
        """How much is held, as it counts against the limit."""
        return await self._log.size_bytes(self._stream)

    async def ending(self, group: str) -> str | None:
        """How the group ended, if it did."""
        found = await self._first(self._stream, f"{_READY}.{names.token(group)}") or await self.mark(group)
        return None if found is None else ending_of(found)[1]

    async def is_ending(self, group: str) -> bool:
        """Whether the group ended, and is still to be removed."""
        return await self._first(self._stream, f"{_READY}.{names.token(group)}") is not None

    async def mark(self, group: str) -> WireEvent | None:
        """What says that the group was dealt with."""
        return await self._first(names.DONE, self._mark_key(group))

    async def has_part(self, part: Part) -> bool:
        """Whether a part of that index is held."""
        return await self._first(self._stream, _key_of(part)) is not None

    async def included(self, group: str) -> set[int] | None:
        """The indexes of the parts that the group ended with; ``None`` while it is being dealt with."""
        mark = await self.mark(group)
        return None if mark is None else set(orjson.loads(mark.data or b"[]"))

    async def parts(self, group: str, before: int) -> AsyncGenerator[tuple[int, WireEvent], None]:
        """The parts of the group that were stored before that sequence, with their indexes."""
        async for stored in self._log.read(self._stream, f"{_PART}.{names.token(group)}.>"):
            if stored.sequence <= before:
                yield int(stored.key.rpartition(".")[2]), stored.event

    async def endings(self) -> set[str]:
        """The groups that have ended and are still to be removed."""
        return {ending_of(each.event)[0] async for each in self._log.read(self._stream, f"{_READY}.>")}

    async def all_parts(self) -> AsyncIterator[tuple[Part, float]]:
        """Every part, and when it was stored (seconds since the epoch)."""
        async for stored in self._log.read(self._stream, f"{_PART}.>"):
            part = part_of(stored.event.attributes)
            if isinstance(part, Part):
                yield part, stored.stored_at

    async def _first(self, stream: str, key: str) -> WireEvent | None:
        stored = await oldest(self._log, stream, key)
        return None if stored is None else stored.event

    def _mark_key(self, group: str) -> str:
        return f"{names.token(self._key)}.{names.token(group)}"


def _key_of(part: Part) -> str:
    return f"{_PART}.{names.token(part.group)}.{part.index}"
