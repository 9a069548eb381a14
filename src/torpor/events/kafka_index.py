"""What one stream in Kafka holds: the outcome of all its messages, in their order. Pure.

Every process reads a stream's messages in the same order and applies the same rules with the broker's time,
so all agree on which record of an identity was the first, which guard held, and what was removed. The
records themselves stay in Kafka: here a record is some 60 bytes, one of a key of its own some 500, and an
identity inside the duplicate window some 200.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from torpor.events.kafka_codec import Appended, Purged, Trimmed, sequence_of, size_bytes
from torpor.events.names import any_key_matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torpor.events.log import StreamSpec

_DROP_AT_LEAST = 4096


class Verdict(Enum):
    """What became of a record."""

    NEW = "new"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Found:
    """Records that a consumer has not had: their sequences, and up to where there are no others."""

    sequences: list[int]
    upto: int


class Index:
    """The live records of a stream."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.bytes = 0
        self.end = 0
        """Sequences from here on are not known yet."""
        self.at = 0.0
        """The broker's time of the last message."""
        self._sequences = array("q")
        self._runs: list[_Run | None] = []  # None: removed
        self._sizes = array("L")
        self._times = array("d")
        self._first = 0  # all before are removed
        self._by_key: dict[str, _Run] = {}
        self._below: dict[str, dict[str, None]] = {}  # "a.b." -> the keys below
        self._identities: dict[bytes, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    # --- messages -------------------------------------------------------------------------------------------

    def apply(self, offset: int, at: float, message: Appended | Purged | Trimmed) -> list[Verdict]:
        """Take in the message at ``offset``, stored then by the broker (seconds since the epoch)."""
        self.at = max(self.at, at)
        self.expire(self.at)
        self.end = sequence_of(offset + 1)
        if isinstance(message, Purged):
            for key in list(self._matching(message.key)):
                for sequence in list(self._by_key[key]):
                    self._remove(self._place(sequence))
        elif isinstance(message, Trimmed):
            while self._first < len(self._sequences) and self._sequences[self._first] < message.before:
                self._remove(self._first)
                self._settle_head()
        else:
            if message.guard is not None and self.newest(message.guard.key) != message.guard.sequence:
                return [Verdict.SUPERSEDED] * len(message.records)
            return [
                self._append(sequence_of(offset, place), record.key, record.identity, size_bytes(record))
                for place, record in enumerate(message.records)
            ]
        self._settle_head()
        return []

    def skip(self, offset: int) -> None:
        """There is nothing more below ``offset``."""
        self.end = max(self.end, sequence_of(offset))

    def _append(self, sequence: int, key: str, identity: str, size: int) -> Verdict:
        digest = _digest(identity)
        if digest in self._identities or (self.spec.once_per_key and key in self._by_key):
            return Verdict.DUPLICATE
        self._insert(sequence, key, digest, size)
        return Verdict.NEW

    def carry(self, sequence: int, at: float, key: str, identity: str, size: int) -> None:
        """Begin with a record that was stored at that time, before what is to be applied."""
        self.at = max(self.at, at)
        self._insert(sequence, key, _digest(identity), size)

    def _insert(self, sequence: int, key: str, digest: bytes, size: int) -> None:
        self._identities[digest] = self.at
        run = self._by_key.get(key)
        if run is None:
            run = self._by_key[key] = _Run(key)
            for prefix in _prefixes(key):
                self._below.setdefault(prefix, {})[key] = None
        run.append(sequence)
        self._sequences.append(sequence)
        self._runs.append(run)
        self._sizes.append(size)
        self._times.append(self.at)
        self.bytes += size

    def expire(self, now: float) -> None:
        """Forget identities and records whose time is up."""
        seen_before = now - self.spec.duplicate_window_seconds
        while self._identities:
            digest, seen = next(iter(self._identities.items()))
            if seen > seen_before:
                break
            del self._identities[digest]
        if self.spec.max_age_seconds is not None:
            oldest = now - self.spec.max_age_seconds
            while self._first < len(self._sequences) and self._times[self._first] <= oldest:
                self._remove(self._first)
                self._settle_head()

    def _remove(self, place: int) -> None:
        run = self._runs[place]
        if run is None:
            return
        self._runs[place] = None
        self.bytes -= self._sizes[place]
        run.remove(self._sequences[place])
        if not len(run):
            key = run.key
            del self._by_key[key]
            for prefix in _prefixes(key):
                del self._below[prefix][key]
                if not self._below[prefix]:
                    del self._below[prefix]

    def _settle_head(self) -> None:
        while self._first < len(self._runs) and self._runs[self._first] is None:
            self._first += 1
        if self._first >= _DROP_AT_LEAST and 2 * self._first >= len(self._runs):
            del self._sequences[: self._first], self._runs[: self._first]
            del self._sizes[: self._first], self._times[: self._first]
            self._first = 0

    # --- questions ------------------------------------------------------------------------------------------

    def knows(self, identity: str, key: str, now: float) -> bool:
        """Whether a record of that identity and key would be a duplicate at that time."""
        seen = self._identities.get(_digest(identity))
        if seen is not None and seen > now - self.spec.duplicate_window_seconds:
            return True
        held = self._by_key.get(key) if self.spec.once_per_key else None
        return held is not None and not self._is_old(self._place(held.newest), now)

    def holds(self, sequence: int) -> bool:
        """Whether the record is there."""
        place = self._place(sequence)
        return (
            place < len(self._sequences)
            and self._sequences[place] == sequence
            and self._runs[place] is not None
        )

    def newest(self, pattern: str) -> int:
        """The sequence of the newest record under ``pattern``; 0 without one."""
        return max((self._by_key[key].newest for key in self._matching(pattern)), default=0)

    def under(self, pattern: str, now: float) -> list[int]:
        """The sequences of the records that are under ``pattern`` at that time, oldest first."""
        found = sorted(sequence for key in self._matching(pattern) for sequence in self._by_key[key])
        if self.spec.max_age_seconds is None:
            return found
        return [sequence for sequence in found if not self._is_old(self._place(sequence), now)]

    def size(self, sequence: int) -> int:
        """The size of a record that is held, in bytes."""
        return self._sizes[self._place(sequence)]

    def stored_at(self, sequence: int) -> float:
        """When a record that is held was stored, by the broker's time."""
        return self._times[self._place(sequence)]

    def first(self) -> int:
        """The first sequence that is held; one beyond the last if there is none."""
        return self._sequences[self._first] if self._first < len(self._sequences) else self.end

    def first_since(self, at: float) -> int:
        """The first sequence that was stored at or after that time."""
        place = bisect_left(self._times, at, self._first)
        return self._sequences[place] if place < len(self._sequences) else self.end

    def find(self, keys: Sequence[str], start: int, limit: int) -> Found:
        """The first ``limit`` records from the sequence ``start`` on whose keys match."""
        found: list[int] = []
        wanted: dict[_Run | None, bool] = {None: False}
        for place in range(self._place(start), len(self._sequences)):
            run = self._runs[place]
            match = wanted.get(run)
            if match is None and run is not None:
                match = wanted[run] = not keys or any_key_matches(keys, run.key)
            if match:
                if len(found) == limit:
                    return Found(found, self._sequences[place])
                found.append(self._sequences[place])
        return Found(found, self.end)

    def count(self, keys: Sequence[str], start: int) -> int:
        """How many records from the sequence ``start`` on match."""
        patterns = keys or (">",)
        return sum(
            self._by_key[key].count_from(start)
            for key in {key for pattern in patterns for key in self._matching(pattern)}
        )

    def _is_old(self, place: int, now: float) -> bool:
        age = self.spec.max_age_seconds
        return age is not None and self._times[place] <= now - age

    def _place(self, sequence: int) -> int:
        return bisect_left(self._sequences, sequence, self._first)

    def _matching(self, pattern: str) -> Iterator[str]:
        if pattern == ">":
            yield from self._by_key
        elif pattern.endswith(".>"):
            yield from self._below.get(pattern[:-1], ())
        elif pattern in self._by_key:
            yield pattern


class _Run:
    """The growing sequences of a key, of which mostly the first is removed."""

    __slots__ = ("_first", "_items", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self._items = array("q")
        self._first = 0

    def __len__(self) -> int:
        return len(self._items) - self._first

    def __iter__(self) -> Iterator[int]:
        return iter(self._items[self._first :])

    @property
    def newest(self) -> int:
        return self._items[-1]

    def append(self, sequence: int) -> None:
        self._items.append(sequence)

    def remove(self, sequence: int) -> None:
        if self._items[self._first] != sequence:
            del self._items[bisect_left(self._items, sequence, self._first)]
            return
        self._first += 1
        if self._first >= _DROP_AT_LEAST and 2 * self._first >= len(self._items):
            del self._items[: self._first]
            self._first = 0

    def count_from(self, sequence: int) -> int:
        return len(self._items) - bisect_left(self._items, sequence, self._first)


def _prefixes(key: str) -> Iterator[str]:
    at = key.find(".")
    while at >= 0:
        yield key[: at + 1]
        at = key.find(".", at + 1)


def _digest(identity: str) -> bytes:
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest()
