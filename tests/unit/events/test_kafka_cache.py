"""What a process keeps of the messages that it has seen in Kafka."""

from __future__ import annotations

from tests.unit.events.world import event
from torpor.events.kafka_stream import Cache, Entry
from torpor.events.log import Record

SIZE = 100


def entry(size: int = SIZE) -> Entry:
    return Entry(lambda _: Record("k", "i", event("1")), 0.0, size)


def kept(cache: Cache, offsets: range) -> list[int]:
    return [offset for offset in offsets if cache.get("t", offset) is not None]


def test_what_is_read_once_more_pushes_out_nothing_that_is_still_to_come() -> None:
    cache = Cache(8 * SIZE)
    for offset in range(10):
        cache.put("t", offset, entry())
    assert kept(cache, range(10)) == [4, 5, 6, 7, 8, 9]
    for offset in range(4):  # a reader begins at the first
        cache.put("t", offset, entry(), again=True)
    assert kept(cache, range(10)) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_message_counts_once_however_often_it_comes_and_one_is_kept_whatever_its_size() -> None:
    cache = Cache(8 * SIZE)
    for _ in range(20):
        cache.put("t", 1, entry())
    cache.put("t", 2, entry())
    assert kept(cache, range(3)) == [1, 2]
    cache.put("t", 3, entry(100 * SIZE))
    assert kept(cache, range(4)) == [3]
    assert cache.get("other", 3) is None
