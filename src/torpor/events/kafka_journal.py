"""What the durable consumers of one stream in Kafka have had: the outcome of their journal. Pure.

The journal is a partition of its own. Processes write what they want (a claim of records, an acknowledgement,
a retry) and read back, in one order for all, what comes of it. So any number of processes share a consumer
without a group, an assignment or a rebalance: of two that claim the same record, the first in the journal has
it. Leases and retries run on the broker's time, which stamps each entry.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass, field
from typing import Any

from torpor.events.log import ConsumerSpec


@dataclass(frozen=True, slots=True)
class Grant:
    """A record that a claim got, and which attempt that is."""

    sequence: int
    attempt: int


@dataclass(slots=True)
class Durable:
    """One durable consumer. ``born`` is the journal's offset that made it, ``version`` that of its spec."""

    spec: ConsumerSpec
    born: int
    version: int
    next: int
    held: dict[int, tuple[int, float, bool]] = field(default_factory=dict)
    """sequence -> attempt, when it comes again (broker's time), whether it waits for a retry."""
    due: list[tuple[float, int, int]] = field(default_factory=list)
    """A heap of when, sequence and attempt; entries that ``held`` contradicts are stale."""

    def claim(self, at: float, limit: int, version: int, fresh: list[int], upto: int) -> list[Grant]:
        """Hand out up to ``limit`` records at that time: those that come again, then new ones.

        ``fresh`` are the first records from :attr:`next` on that the claimant sees to match ``version`` of
        the spec; there is no other below ``upto``.
        """
        grants: list[Grant] = []
        while len(grants) < limit and (when := self.next_due()) is not None and when <= at:
            _, sequence, _ = heapq.heappop(self.due)
            grants.append(self._lend(sequence, self.held[sequence][0] + 1, at))
        if version != self.version:
            return grants
        room = min(limit - len(grants), self.spec.max_in_flight - len(self.held))
        for sequence in fresh:
            if sequence < self.next:
                continue
            if room <= 0:
                return grants
            grants.append(self._lend(sequence, 1, at))
            self.next = sequence + 1
            room -= 1
        self.next = max(self.next, upto)
        return grants

    def settle(self, at: float, sequence: int, attempt: int, delay_seconds: float | None) -> None:
        """End an attempt; with a delay, the record comes again. Ignored if that attempt has no lease."""
        held = self.held.get(sequence)
        if held is None or held[0] != attempt or held[2]:
            return
        if delay_seconds is None:
            del self.held[sequence]
        else:
            self._hold(sequence, attempt, at + delay_seconds, waits=True)

    def extend(self, at: float, sequence: int, attempt: int) -> None:
        """Start the acknowledgement's time anew."""
        held = self.held.get(sequence)
        if held is not None and held[0] == attempt and not held[2]:
            self._hold(sequence, attempt, at + self.spec.ack_wait_seconds, waits=False)

    def next_due(self) -> float | None:
        """When the next record comes again, by the broker's time."""
        while self.due:
            when, sequence, attempt = self.due[0]
            held = self.held.get(sequence)
            if held is not None and held[:2] == (attempt, when):
                return when
            heapq.heappop(self.due)
        return None

    def _lend(self, sequence: int, attempt: int, at: float) -> Grant:
        self._hold(sequence, attempt, at + self.spec.ack_wait_seconds, waits=False)
        return Grant(sequence, attempt)

    def _hold(self, sequence: int, attempt: int, until: float, *, waits: bool) -> None:
        self.held[sequence] = (attempt, until, waits)
        heapq.heappush(self.due, (until, sequence, attempt))
        if len(self.due) > 64 + 4 * len(self.held):
            self.due = [(until, sequence, attempt) for sequence, (attempt, until, _) in self.held.items()]
            heapq.heapify(self.due)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one entry of the journal did: ``grants`` answer a claim of ``reader``."""

    reader: str = ""
    grants: tuple[Grant, ...] = ()


class Journal:
    """All durable consumers of a stream."""

    def __init__(self) -> None:
        self.consumers: dict[str, Durable] = {}
        self.end = 0
        """Offsets from here on are not known yet."""
        self.trimmed = 0
        """Records below this sequence are removed, or are about to be, and no consumer waits for them."""
        self.purged = False
        """Whether other records were ever removed before their time, or are about to be."""

    def apply(self, offset: int, at: float, entries: list[dict[str, Any]]) -> list[Outcome]:
        """Take in the message at ``offset``, stored at that time."""
        self.end = offset + 1
        return [outcome for entry in entries if (outcome := self._apply(offset, at, entry)) is not None]

    def _apply(self, offset: int, at: float, entry: dict[str, Any]) -> Outcome | None:
        verb, name = entry["do"], entry["consumer"]
        if verb == "put":
            self._put(offset, entry)
            return None
        if verb == "trim":
            self.trimmed = max(self.trimmed, entry["before"])
            return None
        if verb == "purge":
            self.purged = True
            return None
        durable = self.consumers.get(name)
        if durable is None or entry.get("born", durable.born) != durable.born:
            return Outcome(entry["reader"]) if verb == "claim" else None
        if verb == "drop":
            del self.consumers[name]
        elif verb == "claim":
            grants = durable.claim(at, entry["limit"], entry["version"], entry["fresh"], entry["upto"])
            return Outcome(entry["reader"], tuple(grants))
        elif verb == "settle":
            for sequence, attempt, delay_seconds in entry["of"]:
                durable.settle(at, sequence, attempt, delay_seconds)
        elif verb == "extend":
            for sequence, attempt in entry["of"]:
                durable.extend(at, sequence, attempt)
        return None

    def _put(self, offset: int, entry: dict[str, Any]) -> None:
        spec = _spec(entry["spec"])
        durable = self.consumers.get(entry["consumer"])
        if durable is None:
            self.consumers[spec.name] = Durable(spec, offset, offset, entry["next"])
        elif not entry["keep"] and durable.spec != spec:
            durable.spec, durable.version = spec, offset

    # --- snapshots ------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Everything, for :meth:`load`."""
        consumers = [
            {
                "spec": asdict(each.spec),
                "born": each.born,
                "version": each.version,
                "next": each.next,
                "held": [[sequence, *held] for sequence, held in each.held.items()],
            }
            for each in self.consumers.values()
        ]
        said = {"end": self.end, "trimmed": self.trimmed, "purged": self.purged}
        return {**said, "consumers": consumers}

    @classmethod
    def load(cls, document: dict[str, Any]) -> Journal:
        """The journal as it was when it was dumped."""
        journal = cls()
        journal.end = document["end"]
        journal.trimmed = document.get("trimmed", 0)
        journal.purged = document.get("purged", False)
        for entry in document["consumers"]:
            durable = Durable(_spec(entry["spec"]), entry["born"], entry["version"], entry["next"])
            for sequence, attempt, until, waits in entry["held"]:
                durable.held[sequence] = (attempt, until, waits)
                durable.due.append((until, sequence, attempt))
            heapq.heapify(durable.due)
            journal.consumers[durable.spec.name] = durable
        return journal


def put(spec: ConsumerSpec, start: int, *, keep: bool) -> dict[str, Any]:
    """The entry that makes a consumer that starts at the sequence ``start``, or brings it to ``spec``."""
    return {"do": "put", "consumer": spec.name, "spec": asdict(spec), "next": start, "keep": keep}


def trim(before: int) -> dict[str, Any]:
    """The entry that goes before the removal of the records below the sequence ``before``."""
    return {"do": "trim", "consumer": "", "before": before}


def purge() -> dict[str, Any]:
    """The entry that goes before the first removal of records of some key."""
    return {"do": "purge", "consumer": ""}


def _spec(document: dict[str, Any]) -> ConsumerSpec:
    return ConsumerSpec(**{**document, "keys": tuple(document["keys"])})
