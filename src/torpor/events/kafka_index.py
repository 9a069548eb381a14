"""What one stream in Kafka holds: the outcome of all its messages, in their order. Pure.

Every process reads a stream's messages in the same order and applies the same rules with the broker's time,
so all agree on which record of an identity was the first, which guard held, and what was removed. The
records themselves stay in Kafka: here a record is some 3 bytes (:mod:`torpor.events.kafka_blocks`), one of a
key of its own some 600, and an identity inside the duplicate window some 200.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from torpor.events.kafka_blocks import Block, Run
from torpor.events.kafka_codec import Appended, Head, Purged, Trimmed, sequence_of
from torpor.events.names import any_key_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torpor.events.log import StreamSpec

BLOCK_RECORDS = 4096
OPEN_BLOCKS = 16
_GENERATIONS = 4


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

    def __init__(
        self, spec: StreamSpec, *, block_records: int = BLOCK_RECORDS, open_blocks: int = OPEN_BLOCKS
    ) -> None:
        self.spec = spec
        self.bytes = 0
        self.end = 0
        """Sequences from here on are not known yet."""
        self.at = 0.0
        """The broker's time of the last message."""
        self._block_records = block_records
        self._open_blocks = open_blocks
        self._blocks: list[Block] = []  # each has a live record
        self._used: dict[Block, None] = {}  # those that were looked at last, the last one last
        self._live = 0
        self._by_key: dict[str, Run] = {}
        self._below: dict[str, dict[str, None]] = {}  # "a.b." -> the keys below
        self._identities = Identities()

    def __len__(self) -> int:
        return self._live

    # --- messages -------------------------------------------------------------------------------------------

    def apply(self, offset: int, at: float, message: Appended | Purged | Trimmed) -> list[Verdict]:
        """Take in the message at ``offset``, stored then by the broker (seconds since the epoch)."""
        self.at = max(self.at, at)
        self.expire(self.at)
        self.end = sequence_of(offset + 1)
        if isinstance(message, Purged):
            for key in list(self._matching(message.key)):
                self._purge(self._by_key[key])
        elif isinstance(message, Trimmed):
            self._trim(message.before)
        else:
            if message.guard is not None and self.newest(message.guard.key) != message.guard.sequence:
                return [Verdict.SUPERSEDED] * len(message.heads)
            return self._append(sequence_of(offset), message.heads)
        return []

    def skip(self, offset: int) -> None:
        """There is nothing more below ``offset``."""
        self.end = max(self.end, sequence_of(offset))

    def _append(self, sequence: int, heads: Sequence[Head]) -> list[Verdict]:
        """Insert records, the first of which has that sequence, as far as they are new."""
        identities, since = self._identities, self.at - self.spec.duplicate_window_seconds
        once_per_key, by_key = self.spec.once_per_key, self._by_key
        verdicts: list[Verdict] = []
        new: list[tuple[int, Run, int]] = []
        for at, (key, digest, size) in enumerate(heads, sequence):
            if identities.seen_at(digest) > since or (once_per_key and key in by_key):
                verdicts.append(Verdict.DUPLICATE)
                continue
            verdicts.append(Verdict.NEW)
            new.append((at, self._run(at, key, digest), size))
        self._insert(new)
        return verdicts

    def carry(self, sequence: int, at: float, head: Head) -> None:
        """Begin with a record that was stored at that time, before what is to be applied."""
        self.at = max(self.at, at)
        key, digest, size = head
        self._insert([(sequence, self._run(sequence, key, digest), size)])
        self.end = max(self.end, sequence + 1)

    def _run(self, sequence: int, key: str, digest: bytes) -> Run:
        """The run of ``key``, which has one record more from now on; its identity has been seen."""
        self._identities.add(digest, self.at, self.spec.duplicate_window_seconds / _GENERATIONS)
        run = self._by_key.get(key)
        if run is None:
            run = self._by_key[key] = Run(key, sequence)
            for prefix in _prefixes(key):
                self._below.setdefault(prefix, {})[key] = None
        run.append(sequence)
        return run

    def _insert(self, records: Sequence[tuple[int, Run, int]]) -> None:
        """Add records at the end: their sequences, runs and sizes."""
        at_ms = _milliseconds(self.at)
        start = 0
        while start < len(records):
            if not self._blocks or self._blocks[-1].length >= self._block_records:
                self._blocks.append(Block(records[start][0], at_ms))
            block = self._use(self._blocks[-1])
            some = records[start : start + self._block_records - block.length]
            self.bytes += block.extend(some, at_ms)
            start += len(some)
        self._live += len(records)

    def expire(self, now: float) -> None:
        """Forget identities and records whose time is up."""
        self._identities.forget(now - self.spec.duplicate_window_seconds)
        if self.spec.max_age_seconds is not None and self._blocks:
            old_ms = _milliseconds(now - self.spec.max_age_seconds)
            if self._blocks[0].since_ms <= old_ms:
                self._trim(self._first_since(old_ms + 1))

    def _trim(self, before: int) -> None:
        """Remove the records below the sequence ``before``."""
        gone = bisect_left(self._blocks, before, key=lambda block: block.last)
        for block in self._blocks[:gone]:
            for run, count in block.runs.items():
                run.remove_to(block.last, count)
                self._forget(run)
            self._live -= block.live
            self.bytes -= block.bytes
            self._used.pop(block, None)
        del self._blocks[:gone]
        if self._blocks and self._blocks[0].first < before:
            block = self._use(self._blocks[0])
            for place in range(block.head, block.place(before)):
                self._remove(block, place)

    def _purge(self, run: Run) -> None:
        for sequence in self._sequences((run,)):
            block = self._block_of(sequence)
            if block is not None:
                self._remove(block, block.place(sequence))

    def _remove(self, block: Block, place: int) -> None:
        size = block.bytes
        run = block.remove(place)
        if run is not None:
            self.bytes -= size - block.bytes
            self._live -= 1
            run.remove(block.columns.sequences[place])
            self._forget(run)
            if not block.live:
                del self._blocks[self._number(block.last)]
                self._used.pop(block, None)

    def _forget(self, run: Run) -> None:
        """A key is known for as long as it has a record."""
        if run.count:
            return
        del self._by_key[run.key]
        for prefix in _prefixes(run.key):
            del self._below[prefix][run.key]
            if not self._below[prefix]:
                del self._below[prefix]

    # --- questions ------------------------------------------------------------------------------------------

    def knows(self, digest: bytes, key: str, now: float) -> bool:
        """Whether a record of that identity's digest and that key would be a duplicate at that time."""
        if self._identities.seen_at(digest) > now - self.spec.duplicate_window_seconds:
            return True
        held = self._by_key.get(key) if self.spec.once_per_key else None
        return held is not None and bool(self._young([held.newest], now))

    def holds(self, sequence: int) -> bool:
        """Whether the record is there."""
        return self.size(sequence) is not None

    def newest(self, pattern: str) -> int:
        """The sequence of the newest record under ``pattern``; 0 without one."""
        return max((self._by_key[key].newest for key in self._matching(pattern)), default=0)

    def under(self, pattern: str, now: float) -> list[int]:
        """The sequences of the records that are under ``pattern`` at that time, oldest first."""
        return self._young(self._sequences([self._by_key[key] for key in self._matching(pattern)]), now)

    def size(self, sequence: int) -> int | None:
        """The size of a record in bytes; ``None`` if it isn't there."""
        found = self._find(sequence)
        if found is None or found[0].columns.runs[found[1]] is None:
            return None
        return found[0].columns.sizes[found[1]]

    def stored_at(self, sequence: int) -> float:
        """When a record that is held was stored, by the broker's time; 0 if it isn't held."""
        found = self._find(sequence)
        return 0.0 if found is None else found[0].columns.at_ms[found[1]] / 1000

    def first(self) -> int:
        """The first sequence that is held; one beyond the last if there is none."""
        if not self._blocks:
            return self.end
        block = self._use(self._blocks[0])
        return block.columns.sequences[block.head]

    def first_since(self, at: float) -> int:
        """The first sequence that was stored at or after that time."""
        return self._first_since(_milliseconds(at))

    def find(self, keys: Sequence[str], start: int, limit: int) -> Found:
        """The first ``limit`` records from the sequence ``start`` on whose keys match."""
        found: list[int] = []
        wanted = _Wanted(keys)
        for number in range(self._number(start), len(self._blocks)):
            block = self._blocks[number]
            if not any(map(wanted.__getitem__, block.runs)):
                continue
            columns = self._use(block).columns
            for place in range(block.place(start), block.length):
                if wanted[columns.runs[place]]:
                    if len(found) == limit:
                        return Found(found, columns.sequences[place])
                    found.append(columns.sequences[place])
        return Found(found, self.end)

    def count(self, keys: Sequence[str], start: int) -> int:
        """How many records from the sequence ``start`` on match."""
        runs = {self._by_key[key] for pattern in keys or (">",) for key in self._matching(pattern)}
        straddling = {run for run in runs if run.oldest < start <= run.newest}
        total = sum(run.count for run in runs if run.oldest >= start)
        if not straddling:
            return total
        for number in range(self._number(start), len(self._blocks)):
            block = self._blocks[number]
            if block.first < start:
                live = self._use(block).columns.runs[block.place(start) :]
                total += sum(1 for run in live if run in straddling)
            else:
                total += sum(count for run, count in block.runs.items() if run in straddling)
        return total

    def _sequences(self, runs: Iterable[Run]) -> list[int]:
        """The sequences of all records of ``runs``, in their order."""
        found: list[int] = []
        long: set[Run] = set()
        for run in runs:
            if run.items is None:
                long.add(run)
            else:
                found += run.items
        if long:
            first, last = min(run.oldest for run in long), max(run.newest for run in long)
            for block in self._blocks[self._number(first) : self._number(last) + 1]:
                if long.isdisjoint(block.runs):
                    continue
                columns = self._use(block).columns
                found += [
                    sequence
                    for sequence, run in zip(columns.sequences, columns.runs, strict=True)
                    if run in long
                ]
        found.sort()
        return found

    def _young(self, sequences: list[int], now: float) -> list[int]:
        """Those of ``sequences``, which grow, whose time is not up."""
        age = self.spec.max_age_seconds
        if age is None:
            return sequences
        return sequences[bisect_left(sequences, self._first_since(_milliseconds(now - age) + 1)) :]

    def _matching(self, pattern: str) -> Iterator[str]:
        if pattern == ">":
            yield from self._by_key
        elif pattern.endswith(".>"):
            yield from self._below.get(pattern[:-1], ())
        elif pattern in self._by_key:
            yield pattern

    # --- blocks ---------------------------------------------------------------------------------------------

    def _number(self, sequence: int) -> int:
        """Which block has the first record of that sequence or above; without one, one beyond the last."""
        return bisect_left(self._blocks, sequence, key=lambda block: block.last)

    def _block_of(self, sequence: int) -> Block | None:
        last = next(reversed(self._used), None)
        if last is not None and last.first <= sequence <= last.last:
            return last  # who asks for one mostly asks for the next one, too
        number = self._number(sequence)
        return self._use(self._blocks[number]) if number < len(self._blocks) else None

    def _find(self, sequence: int) -> tuple[Block, int] | None:
        """The block and the place of a record, live or not."""
        block = self._block_of(sequence)
        if block is None:
            return None
        place = block.place(sequence)
        return (block, place) if block.columns.sequences[place] == sequence else None

    def _first_since(self, since_ms: int) -> int:
        number = bisect_left(self._blocks, since_ms, key=lambda block: block.until_ms)
        if number == len(self._blocks):
            return self.end
        block = self._use(self._blocks[number])
        return block.columns.sequences[bisect_left(block.columns.at_ms, since_ms, block.head)]

    def _use(self, block: Block) -> Block:
        """``block``, which is about to be looked at; what was not looked at for longest is packed."""
        if block not in self._used:
            self._used[block] = None
            if len(self._used) > self._open_blocks:
                oldest = next(iter(self._used))
                del self._used[oldest]
                oldest.pack()
        elif next(reversed(self._used)) is not block:
            del self._used[block]
            self._used[block] = None
        return block


class Identities:
    """When each identity was seen last, for as long as that matters.

    They are kept by generations, which are let go whole: a dictionary of millions that loses its first ones
    one by one becomes slow, and never smaller.
    """

    def __init__(self) -> None:
        self._generations: deque[_Generation] = deque()  # the newest first

    def __len__(self) -> int:
        return sum(len(each.seen) for each in self._generations)

    def add(self, digest: bytes, at: float, generation_seconds: float) -> None:
        """It was seen at that time, which is no earlier than that of the last one."""
        if not self._generations or at >= self._generations[0].since + generation_seconds:
            self._generations.appendleft(_Generation(at))
        newest = self._generations[0]
        newest.seen[digest] = newest.until = at

    def seen_at(self, digest: bytes) -> float:
        """When it was seen last; minus infinity if that is not known."""
        for generation in self._generations:
            if (at := generation.seen.get(digest)) is not None:
                return at
        return -math.inf

    def forget(self, upto: float) -> None:
        """All that was seen up to that time does not matter any more."""
        while self._generations and self._generations[-1].until <= upto:
            self._generations.pop()


class _Generation:
    __slots__ = ("seen", "since", "until")

    def __init__(self, since: float) -> None:
        self.since = since
        self.until = since
        self.seen: dict[bytes, float] = {}


class _Wanted(dict[Run | None, bool]):
    """Which runs match ``keys``; no keys stand for all."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__({None: False})
        self._keys = keys

    def __missing__(self, run: Run) -> bool:
        self[run] = answer = not self._keys or any_key_matches(self._keys, run.key)
        return answer


def _milliseconds(at: float) -> int:
    """Kafka stamps messages in milliseconds."""
    return round(at * 1000)


def _prefixes(key: str) -> Iterator[str]:
    at = key.find(".")
    while at >= 0:
        yield key[: at + 1]
        at = key.find(".", at + 1)
