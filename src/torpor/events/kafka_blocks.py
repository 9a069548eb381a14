"""What is known of the records of a stream in Kafka, in blocks that take little while nobody looks. Pure.

A record is some 40 bytes while its block is open, and some 3 once it is packed (a million of one key, of one
size). Blocks whose records have many keys stay open: what their keys take is far more.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections import Counter
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FEW_KEYS = 64
_SHORT = 64


class Run:
    """The live records of one key, which grow at the end and mostly go from the start."""

    __slots__ = ("count", "items", "key", "newest", "oldest")

    def __init__(self, key: str, sequence: int) -> None:
        self.key = key
        self.oldest = sequence
        """No record of the key is older."""
        self.newest = sequence
        self.count = 0
        self.items: list[int] | None = []
        """Their sequences, unless they have ever been many: then the blocks alone say which they are."""

    def append(self, sequence: int) -> None:
        """There is one more."""
        self.newest = sequence
        self.count += 1
        if self.items is not None:
            self.items.append(sequence)
            if len(self.items) > _SHORT:
                self.items = None

    def remove(self, sequence: int) -> None:
        """That one is gone."""
        self.count -= 1
        if self.items is not None:
            self.items.remove(sequence)

    def remove_to(self, last: int, count: int) -> None:
        """As many are gone, which are all up to the sequence ``last``."""
        self.count -= count
        self.oldest = max(self.oldest, last)
        if self.items is not None:
            del self.items[:count]


class _Columns:
    """Of each record of a block: its sequence, its run if it is there still, its size, and when it came."""

    __slots__ = ("at_ms", "runs", "sequences", "sizes")

    def __init__(
        self, sequences: array[int], runs: list[Run | None], sizes: array[int], at_ms: array[int]
    ) -> None:
        self.sequences = sequences
        self.runs = runs
        self.sizes = sizes
        self.at_ms = at_ms


class Block:
    """Records that follow each other, live or removed; at least one."""

    __slots__ = (
        "_columns",
        "_packed",
        "bytes",
        "first",
        "head",
        "last",
        "length",
        "live",
        "runs",
        "since_ms",
        "until_ms",
    )

    def __init__(self, first: int, since_ms: int) -> None:
        self.first = first
        """The sequence of its first record; :attr:`last` is that of its last."""
        self.last = first
        self.since_ms = since_ms
        """When its first record was stored (milliseconds since the epoch); :attr:`until_ms` is its last's."""
        self.until_ms = since_ms
        self.length = 0
        self.head = 0
        """All records at places before this one are removed."""
        self.live = 0
        self.bytes = 0
        """The size of the live ones."""
        self.runs: dict[Run, int] = {}
        """How many live records of which keys it has."""
        self._columns: _Columns | None = _Columns(array("q"), [], array("q"), array("q"))
        self._packed: bytes | None = None

    @property
    def columns(self) -> _Columns:
        """All its records; opens it."""
        if self._columns is None:
            self._columns = self._unpacked(self._packed or b"")
        return self._columns

    def extend(self, records: Sequence[tuple[int, Run, int]], at_ms: int) -> int:
        """Add records, at least one: their sequences, runs and sizes; returns how large they are together.

        Their sequences grow and are above :attr:`last`, and they are no earlier than the last.
        """
        columns = self.columns
        sequences, runs, sizes = zip(*records, strict=True)
        columns.sequences.extend(sequences)
        columns.runs.extend(runs)
        columns.sizes.extend(sizes)
        columns.at_ms.extend([at_ms] * len(records))
        self.last, self.until_ms = sequences[-1], at_ms
        self.length += len(records)
        self.live += len(records)
        size: int = sum(sizes)
        self.bytes += size
        for run, count in Counter(runs).items():
            self.runs[run] = self.runs.get(run, 0) + count
        self._packed = None
        return size

    def place(self, sequence: int) -> int:
        """The place of the first live or removed record of that sequence or above, from the head on."""
        return bisect_left(self.columns.sequences, sequence, self.head)

    def remove(self, place: int) -> Run | None:
        """Remove a record, and say of which run it was; ``None``: it was gone."""
        columns = self.columns
        run = columns.runs[place]
        if run is None:
            return None
        columns.runs[place] = None
        self.live -= 1
        self.bytes -= columns.sizes[place]
        self.runs[run] -= 1
        if not self.runs[run]:
            del self.runs[run]
        while self.head < self.length and columns.runs[self.head] is None:
            self.head += 1
        self._packed = None
        return run

    def pack(self) -> None:
        """Take little memory until the next look, if that is worth it."""
        if self._columns is None or len(self.runs) > _FEW_KEYS:
            return
        if self._packed is None:
            self._packed = self._pack(self._columns)
        self._columns = None

    def _pack(self, columns: _Columns) -> bytes:
        number = {run: place for place, run in enumerate(self.runs, 1)}
        parts = (
            _steps(columns.sequences),
            columns.sizes,
            _steps(columns.at_ms),
            array("q", [0 if run is None else number[run] for run in columns.runs]),
        )
        return zlib.compress(b"".join(part.tobytes() for part in parts), 1)

    def _unpacked(self, packed: bytes) -> _Columns:
        raw = memoryview(zlib.decompress(packed))
        part = len(raw) // 4
        sequences, sizes, at_ms, numbers = (
            array("q", raw[place * part : (place + 1) * part].tobytes()) for place in range(4)
        )
        runs = [None, *self.runs]
        return _Columns(
            array("q", accumulate(sequences)),
            [runs[number] for number in numbers],
            sizes,
            array("q", accumulate(at_ms)),
        )


def _steps(of: Iterable[int]) -> array[int]:
    """The first, and each one's distance from the one before."""
    return array("q", [later - earlier for earlier, later in pairwise((0, *of))])
