"""The contract of every event log, as cases: :data:`CASES`, each a function of a :class:`Rig`.

Run each with a fresh rig (see ``tests/unit/events/test_memory_contract.py``). None waits for a fixed time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

import pytest

from torpor.binding import WireEvent
from torpor.clock import cancel
from torpor.errors import EventLogError, RecordTooLargeError, StreamFullError, SupersededError
from torpor.events.log import MAX_APPEND, MAX_FETCH, ConsumerSpec, Guard, Record, StreamSpec
from torpor.events.names import token
from torpor.testing.contracts.rig import Rig, event, record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.events.log import Consumer

    Case = Callable[[Rig], Awaitable[None]]

CASES: list[Case] = []


def _case(function: Case) -> Case:
    CASES.append(function)
    return function


# --- streams ------------------------------------------------------------------------------------------------


@_case
async def streams_are_listed_in_order(rig: Rig) -> None:
    """All streams, sorted."""
    await rig.log.ensure_stream(StreamSpec(f"{rig.stream}.b"))
    await rig.log.ensure_stream(StreamSpec(f"{rig.stream}.a"))
    ours = [name for name in await rig.log.streams() if name.startswith(f"{rig.stream}.")]
    assert ours == [f"{rig.stream}.a", f"{rig.stream}.b"]


@_case
async def a_stream_made_twice_keeps_its_records(rig: Rig) -> None:
    """ensure_stream is idempotent."""
    await rig.make()
    await rig.append("1")
    await rig.make()
    assert await rig.ids() == ["1"]


@_case
async def a_stream_takes_a_new_spec(rig: Rig) -> None:
    """A full stream that may hold more takes more."""
    await rig.make(max_bytes=400)
    with pytest.raises(StreamFullError):
        await rig.append("1", "2", "3", "4", "5", "6", "7", "8", "9")
    await rig.make(max_bytes=1_000_000)
    assert await rig.append("1", "2", "3", "4", "5", "6", "7", "8", "9") == [True] * 9


@_case
async def a_removed_stream_is_gone_with_its_records(rig: Rig) -> None:
    """A stream of the same name starts empty."""
    await rig.make()
    await rig.append("1")
    await rig.open()
    await rig.log.remove_stream(rig.stream)
    assert rig.stream not in await rig.log.streams()
    await rig.make()
    assert await rig.ids() == []
    assert await rig.log.consumers(rig.stream) == []


@_case
async def removing_an_unknown_stream_does_nothing(rig: Rig) -> None:
    """remove_stream is idempotent."""
    await rig.log.remove_stream(rig.stream)


@_case
async def an_unknown_stream_is_an_error(rig: Rig) -> None:
    """Every call that needs the stream says that there is none."""
    for call in (rig.append("1"), rig.open(), rig.ids(), rig.log.consumers(rig.stream)):
        with pytest.raises(EventLogError):
            await call


@_case
async def streams_whose_names_begin_alike_are_apart(rig: Rig) -> None:
    """The stream a.b holds nothing of the stream a."""
    await rig.make()
    other = f"{rig.stream}.some"
    await rig.log.ensure_stream(StreamSpec(other))
    await rig.append("1", key="some.key")
    await rig.log.append(other, [record("2", "key")])
    assert await rig.ids() == ["1"]
    assert [stored.event.id async for stored in rig.log.read(other, ">")] == ["2"]


# --- append -------------------------------------------------------------------------------------------------


@_case
async def records_are_kept_in_order(rig: Rig) -> None:
    """Sequences grow, times are the log's."""
    await rig.make()
    before = rig.time.now()
    assert await rig.append("1", "2") == [True, True]
    assert await rig.append("3") == [True]
    stored = await rig.stored()
    assert [each.event.id for each in stored] == ["1", "2", "3"]
    sequences = [each.sequence for each in stored]
    assert sequences == sorted(set(sequences))
    assert all(abs(each.stored_at - before) < 60 for each in stored)
    assert {each.key for each in stored} == {"some.key"}


@_case
async def nothing_is_appended(rig: Rig) -> None:
    """An append of no records is allowed."""
    await rig.make()
    assert await rig.append() == []


@_case
async def a_repeated_record_is_a_duplicate(rig: Rig) -> None:
    """The first stays."""
    await rig.make()
    await rig.append("1")
    assert await rig.log.append(rig.stream, [Record("other.key", "1", event("again"))]) == [False]
    assert await rig.ids() == ["1"]


@_case
async def a_repeated_append_changes_nothing(rig: Rig) -> None:
    """A reply batch that is appended again is there once."""
    await rig.make()
    ids = [str(number) for number in range(20)]
    assert await rig.append(*ids) == [True] * 20
    assert await rig.append(*ids) == [False] * 20
    assert await rig.ids() == ids


@_case
async def duplicates_are_left_out_and_the_rest_is_written(rig: Rig) -> None:
    """In the order of the records, each with its own answer."""
    await rig.make()
    await rig.append("2", "4")
    assert await rig.append("1", "2", "3", "4", "5") == [True, False, True, False, True]
    assert sorted(await rig.ids()) == ["1", "2", "3", "4", "5"]


@_case
async def a_duplicate_within_one_append_counts_once(rig: Rig) -> None:
    """The same identity twice in one append."""
    await rig.make()
    assert await rig.append("1", "1", "2") == [True, False, True]
    assert await rig.ids() == ["1", "2"]


@_case
async def after_the_window_a_record_is_new(rig: Rig) -> None:
    """Identities are remembered for the duplicate window."""
    window = rig.step_seconds
    await rig.make(duplicate_window_seconds=window)
    await rig.append("1")

    async def taken_again() -> None:
        await rig.time.pass_(window)
        while not (await rig.append("1"))[0]:
            await rig.time.pass_(window)

    await rig.soon(taken_again())
    assert await rig.ids() == ["1", "1"]


@_case
async def once_per_key_keeps_the_first(rig: Rig) -> None:
    """Another identity with the same key is a duplicate."""
    await rig.make(once_per_key=True)
    assert await rig.log.append(rig.stream, [record("1", "part.a.0")]) == [True]
    assert await rig.log.append(rig.stream, [record("2", "part.a.0")]) == [False]
    assert await rig.log.append(rig.stream, [record("3", "part.a.1")]) == [True]
    assert await rig.ids() == ["1", "3"]


@_case
async def once_per_key_holds_within_one_append(rig: Rig) -> None:
    """Both for keys that are there and for keys that come twice."""
    await rig.make(once_per_key=True)
    await rig.log.append(rig.stream, [record("1", "part.a.0")])
    records = [record("2", "part.a.0"), record("3", "part.a.1"), record("4", "part.a.1")]
    assert await rig.log.append(rig.stream, records) == [False, True, False]
    assert await rig.ids() == ["1", "3"]


@_case
async def few_keys_among_many_are_read(rig: Rig) -> None:
    """In the order of their records, however many keys stand between; and so are more than a thousand."""
    await rig.make(once_per_key=True)
    await rig.append("a 9", key="part.a.9")
    for start in range(0, 1200, 300):
        numbers = range(start, start + 300)
        records = [record(f"b {number}", f"part.b.{number}") for number in numbers]
        await rig.log.append(rig.stream, records)
        await rig.append(f"a {start}", key=f"part.a.{start}")
    assert await rig.ids("part.a.>") == ["a 9", "a 0", "a 300", "a 600", "a 900"]
    assert await rig.ids("part.b.>") == [f"b {number}" for number in range(1200)]
    assert await rig.ids("part.c.>") == []
    await rig.log.purge(rig.stream, "part.a.300")
    assert await rig.ids("part.a.>") == ["a 9", "a 0", "a 600", "a 900"]


@_case
async def once_per_key_outlasts_the_window(rig: Rig) -> None:
    """A key is taken as long as its record is there."""
    window = rig.step_seconds
    await rig.make(once_per_key=True, duplicate_window_seconds=window)
    await rig.append("1", key="part.a.0")
    await rig.time.pass_(3 * window)
    assert await rig.append("1", key="part.a.0") == [False]


@_case
async def a_purged_key_can_be_written_again(rig: Rig) -> None:
    """once_per_key looks at what is there."""
    await rig.make(once_per_key=True)
    await rig.append("1", key="part.a.0")
    await rig.log.purge(rig.stream, "part.a.0")
    assert await rig.append("2", key="part.a.0") == [True]


@_case
async def a_record_that_is_too_large_is_refused(rig: Rig) -> None:
    """And nothing of its append is written."""
    await rig.make()
    large = Record("some.key", "large", event("large", b"x" * (9 * 1024 * 1024)))
    with pytest.raises(RecordTooLargeError):
        await rig.log.append(rig.stream, [record("1"), large])
    assert await rig.ids() == []


@_case
async def a_record_leaves_as_much_room_as_it_is_to(rig: Rig) -> None:
    """So that what it becomes later, with more attributes, is small enough as well."""
    await rig.make()
    spare = 8 * 1024
    fits, too_large = 1024 * 1024, 9 * 1024 * 1024  # in bytes of data
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        given = Record("some.key", str(middle), event("1", b"x" * middle), spare)
        try:
            await rig.log.append(rig.stream, [given])
            fits = middle
        except RecordTooLargeError:
            too_large = middle
        await rig.log.purge(rig.stream, ">")
    later = event("1", b"x" * fits, more="x" * (spare - 100))
    assert await rig.log.append(rig.stream, [Record("some.key", "later", later)]) == [True]
    with pytest.raises(RecordTooLargeError):
        await rig.log.append(rig.stream, [Record("some.key", "again", later, spare)])
    [stored] = await rig.stored()
    assert stored.event == later


@_case
async def a_large_record_comes_back_whole(rig: Rig) -> None:
    """4 MiB."""
    await rig.make()
    data = bytes(range(256)) * (4 * 4096)
    large = event("large", data, datacontenttype="application/octet-stream")
    await rig.log.append(rig.stream, [Record("some.key", "large", large)])
    [stored] = await rig.stored()
    assert stored.event == large
    [delivery] = await rig.take(await rig.open(), 1)
    assert delivery.record.event == large


@_case
async def a_full_stream_refuses_and_drops_nothing(rig: Rig) -> None:
    """max_bytes bounds what is held."""
    await rig.make(max_bytes=4096)

    async def fill() -> None:
        for number in range(1000):
            await rig.append(str(number))

    with pytest.raises(StreamFullError):
        await fill()
    held = await rig.ids()
    assert held
    assert held == [str(number) for number in range(len(held))]
    with pytest.raises(StreamFullError):
        await rig.append(*(f"more-{number}" for number in range(100)))
    assert await rig.ids() == held


@_case
async def the_size_of_a_stream_is_what_counts_against_its_limit(rig: Rig) -> None:
    """It grows with what is written, and shrinks when that goes."""
    await rig.make(max_bytes=100_000)
    assert await rig.log.size_bytes(rig.stream) == 0
    data = b"x" * 10_000
    for number in range(9):
        await rig.log.append(rig.stream, [Record("some.key", str(number), event(str(number), data))])
        assert (number + 1) * 10_000 <= await rig.log.size_bytes(rig.stream) <= (number + 1) * 11_000
    held = await rig.log.size_bytes(rig.stream)
    with pytest.raises(StreamFullError):
        await rig.log.append(
            rig.stream, [Record("some.key", "large", event("large", b"x" * (100_000 - held)))]
        )
    assert await rig.log.size_bytes(rig.stream) == held
    await rig.log.append(rig.stream, [Record("some.key", "small", event("small", b"x" * 100))])
    await rig.log.purge(rig.stream, ">")
    assert await rig.log.size_bytes(rig.stream) == 0
    with pytest.raises(EventLogError):
        await rig.log.size_bytes("nothing")


@_case
async def too_many_records_are_refused(rig: Rig) -> None:
    """More than MAX_APPEND in one append."""
    await rig.make()
    with pytest.raises(EventLogError):
        await rig.append(*map(str, range(MAX_APPEND + 1)))
    assert await rig.ids() == []


@_case
async def a_large_append_is_written_whole(rig: Rig) -> None:
    """More than a broker takes in one batch."""
    await rig.make()
    ids = [str(number) for number in range(2500)]
    assert await rig.append(*ids) == [True] * len(ids)
    assert await rig.ids() == ids


@_case
async def appends_at_once_are_all_written(rig: Rig) -> None:
    """100 batches side by side."""
    await rig.make()
    answers = await asyncio.gather(*(rig.append(f"{n}/0", f"{n}/1", f"{n}/2") for n in range(100)))
    assert answers == [[True, True, True]] * 100
    held = await rig.ids()
    assert sorted(held) == sorted(f"{n}/{i}" for n in range(100) for i in range(3))


@_case
async def one_record_appended_at_once_is_there_once(rig: Rig) -> None:
    """Of racing appends of the same identity one is new."""
    await rig.make()
    answers = await asyncio.gather(*(rig.append("1") for _ in range(20)))
    assert sum(new for [new] in answers) == 1
    assert await rig.ids() == ["1"]


@_case
async def many_appended_at_once_have_each_its_answer(rig: Rig) -> None:
    """Though they may be written together: new ones, one that is there already, and ones that come twice."""
    await rig.make()
    await rig.append("0")
    wanted = [str(number % 150) for number in range(300)]
    answers = await asyncio.gather(*(rig.append(each) for each in wanted))
    ids = {str(number) for number in range(150)}
    assert sorted(each for each, [new] in zip(wanted, answers, strict=True) if new) == sorted(ids - {"0"})
    assert sorted(await rig.ids()) == sorted(ids)


@_case
async def events_come_back_as_they_were(rig: Rig) -> None:
    """Attributes and data of all kinds."""
    await rig.make()
    octets = "application/octet-stream"
    events = [
        event("no data", None),
        event("text", "Grüße, 世界 \U0001f600".encode(), datacontenttype="text/plain; charset=utf-8"),
        event("bytes", bytes(range(256)), datacontenttype=octets),
        event("empty", b"", datacontenttype=octets),
        event("accents é 世界", subject='quotes " and % and %41', time="2026-01-01T00:00:00.123456789Z"),
        event(" spaces ", subject="  inner   and around  "),
        event("odd type", b"x", datacontenttype='text/plain; name="é"'),
        event("extensions", b"x", partitionkey="k", traceparent="00-1-2-01", torporerror="it's: bad; really"),
        WireEvent({**event("elsewhere").attributes, "dataref": "file:///a/b"}, None),
        event("colons:", dataref="file:///a/b?c=d&e=f#g"),
        WireEvent(
            {"specversion": "1.0", "id": "bare", "source": "urn:x:y", "type": "t.\U0001f600"}, b"no type"
        ),
    ]
    for each in events:
        await rig.log.append(rig.stream, [Record("some.key", each.id, each)])
    assert [stored.event for stored in await rig.stored()] == events
    deliveries = await rig.take(await rig.open(), len(events))
    assert [delivery.record.event for delivery in deliveries] == events


@_case
async def keys_may_be_any_tokens(rig: Rig) -> None:
    """What names.token makes of odd texts works as a key."""
    await rig.make()
    texts = ["com.example.type", "ü.*.>", "a b", "", "x" * 500, "$JS", "-"]
    for text in texts:
        await rig.append(text or "empty", key=f"{token(text)}.end")
    for text in texts:
        assert await rig.ids(f"{token(text)}.>") == [text or "empty"]


# --- consumers ----------------------------------------------------------------------------------------------


@_case
async def a_consumer_starts_at_the_first_record(rig: Rig) -> None:
    """With start="first" also what was there before it."""
    await rig.make()
    await rig.append("1", "2")
    deliveries = await rig.take(await rig.open(), 2)
    assert [each.record.event.id for each in deliveries] == ["1", "2"]
    assert [each.attempt for each in deliveries] == [1, 1]
    assert deliveries[0].record == (await rig.stored())[0]


@_case
async def a_consumer_may_start_at_the_next_record(rig: Rig) -> None:
    """With start="next" nothing of what was there before it."""
    await rig.make()
    await rig.append("1", "2")
    consumer = await rig.open(start="next")
    await rig.append("3")
    [delivery] = await rig.take(consumer, 1)
    assert delivery.record.event.id == "3"
    assert await consumer.pending() == 1


@_case
async def a_consumer_goes_on_where_it_was(rig: Rig) -> None:
    """Opened again with start="next", it still gets what came in between."""
    await rig.make()
    await (await rig.open(start="next")).close()
    await rig.append("1")
    [delivery] = await rig.take(await rig.open(start="next"), 1)
    assert delivery.record.event.id == "1"


@_case
async def fetch_waits_for_a_record(rig: Rig) -> None:
    """As long as it takes."""
    await rig.make()
    consumer = await rig.open()
    fetching = await rig.in_background(_fetch(consumer))
    assert not fetching.done()
    await rig.append("1")
    assert await rig.soon(fetching) == ["1"]


async def _fetch(consumer: Consumer, limit: int = 1) -> list[str]:
    deliveries = await consumer.fetch(limit)
    return [delivery.record.event.id for delivery in deliveries]


@_case
async def fetch_takes_no_more_than_its_limit(rig: Rig) -> None:
    """The rest comes with the next one."""
    await rig.make()
    await rig.append(*map(str, range(10)))
    consumer = await rig.open()
    first = await rig.soon(consumer.fetch(3))
    assert 1 <= len(first) <= 3
    rest = await rig.take(consumer, 10 - len(first))
    assert [each.record.event.id for each in (*first, *rest)] == [str(number) for number in range(10)]
    await rig.nothing_for(consumer)


@_case
async def fetch_takes_no_more_than_is_handled_in_a_moment(rig: Rig) -> None:
    """However much it asks for; the rest comes with the next ones, in order and once."""
    await rig.make()
    ids = [str(number) for number in range(2 * MAX_FETCH + 10)]
    await rig.append(*ids)
    fetched = await _drain(rig, await rig.open(), len(ids), lambda taken: len(ids) - taken)
    assert max(map(len, fetched)) <= MAX_FETCH
    assert [each for some in fetched for each in some] == ids


async def _drain(rig: Rig, consumer: Consumer, count: int, limit: Callable[[int], int]) -> list[list[str]]:
    """The ids that each fetch brings until ``count`` came; how many were before gives its ``limit``."""
    fetched: list[list[str]] = []
    taken = 0
    while taken < count:
        deliveries = await rig.soon(consumer.fetch(max(limit(taken), consumer.under_way)))
        taken += len(deliveries)
        fetched.append([delivery.record.event.id for delivery in deliveries])
        for delivery in deliveries:
            assert delivery.attempt == 1
            await delivery.ack()
    await rig.until_pending(consumer, 0)
    return fetched


@_case
async def no_more_is_under_way_than_was_asked_for(rig: Rig) -> None:
    """And that comes when no more is asked for."""
    await rig.make()
    ids = [str(number) for number in range(100)]
    await rig.append(*ids)
    consumer = await rig.open()
    assert consumer.under_way == 0
    taken: list[str] = []
    limit = 60
    while limit:
        taken += await rig.soon(_fetch(consumer, limit))
        limit = consumer.under_way
        assert len(taken) + limit <= 60
    assert taken == ids[: len(taken)]
    assert await consumer.outstanding() == len(taken)


@_case
async def fetch_that_is_cancelled_loses_nothing(rig: Rig) -> None:
    """What was under way comes with the next call."""
    await rig.make()
    consumer = await rig.open()
    for number in range(5):
        fetching = await rig.in_background(_fetch(consumer, 2))
        await cancel(fetching)
        await rig.append(str(number))
        [delivery] = await rig.take(consumer, 1)
        assert (delivery.record.event.id, delivery.attempt) == (str(number), 1)
        await delivery.ack()


@_case
async def a_consumer_gets_only_its_keys(rig: Rig) -> None:
    """Exact keys and all below a key."""
    await rig.make()
    consumer = await rig.open(keys=("a", "b.>"))
    for key in ("a", "a.x", "b.x", "b.x.y", "c", "ba.x", "a"):
        await rig.append(f"{key}-{len(await rig.ids())}", key=key)
    deliveries = await rig.take(consumer, 4)
    assert [each.record.key for each in deliveries] == ["a", "b.x", "b.x.y", "a"]
    await rig.nothing_for(consumer)
    assert await consumer.pending() == 4


@_case
async def few_records_among_many_are_found(rig: Rig) -> None:
    """What does not match costs no place and holds nothing up."""
    await rig.make()
    consumer = await rig.open(keys=("rare",), max_in_flight=2)
    for start in range(3):
        await rig.append(*(f"{start}/{number}" for number in range(500)), key="common")
        await rig.append(f"rare {start}", key="rare")
    await rig.until_pending(consumer, 3)
    for start in range(3):
        [delivery] = await rig.take(consumer, 1)
        assert delivery.record.event.id == f"rare {start}"
        await delivery.ack()
    await rig.until_pending(consumer, 0)


@_case
async def a_backlog_is_delivered_in_its_order(rig: Rig) -> None:
    """Once each, however it is fetched."""
    await rig.make()
    ids = [str(number) for number in range(600)]
    await rig.append(*ids)
    consumer = await rig.open(max_in_flight=50)
    fetched = await _drain(rig, consumer, len(ids), lambda taken: 1 + taken % 7)
    assert [each for some in fetched for each in some] == ids


@_case
async def attempts_are_counted_for_each_record_and_consumer(rig: Rig) -> None:
    """A retry of one is none of another."""
    await rig.make()
    one, other = await rig.open("trigger.a.one"), await rig.open("trigger.a.other")
    await rig.append("1", "2")
    first, second = await rig.take(one, 2)
    await first.retry(0.0)
    [again] = await rig.take(one, 1)
    assert (again.record.event.id, again.attempt) == ("1", 2)
    await second.retry(0.0)
    [again] = await rig.take(one, 1)
    assert (again.record.event.id, again.attempt) == ("2", 2)
    assert [each.attempt for each in await rig.take(other, 2)] == [1, 1]


@_case
async def what_comes_while_many_wait_reaches_each_once(rig: Rig) -> None:
    """Ten readers of a consumer, and a record at a time."""
    await rig.make()
    readers = [await rig.open() for _ in range(10)]
    fetching = [asyncio.ensure_future(reader.fetch(1)) for reader in readers]
    await rig.time.settle()
    await rig.append(*map(str, range(10)))
    taken = [delivery for fetched in await rig.soon(asyncio.gather(*fetching)) for delivery in fetched]
    assert sorted(each.record.event.id for each in taken) == [str(number) for number in range(10)]
    for delivery in taken:
        await delivery.ack()
    await rig.until_pending(readers[0], 0)


@_case
async def new_keys_hold_from_then_on(rig: Rig) -> None:
    """A consumer keeps its place when its keys change."""
    await rig.make()
    consumer = await rig.open(keys=("a",))
    await rig.append("1", key="a")
    for delivery in await rig.take(consumer, 1):
        await delivery.ack()
    await rig.until_pending(consumer, 0)
    await consumer.close()
    consumer = await rig.open(keys=("a", "b"))
    await rig.append("2", key="b")
    [delivery] = await rig.take(consumer, 1)
    assert delivery.record.event.id == "2"
    await rig.nothing_for(consumer)


@_case
async def what_is_acknowledged_is_done_with(rig: Rig) -> None:
    """It does not come again, and the consumer waits for nothing more."""
    await rig.make()
    consumer = await rig.open(ack_wait_seconds=rig.step_seconds)
    await rig.append("1")
    [delivery] = await rig.take(consumer, 1)
    await delivery.ack()
    await rig.until_pending(consumer, 0)
    await rig.time.pass_(2 * rig.step_seconds)
    await rig.nothing_for(consumer)


@_case
async def what_is_not_acknowledged_comes_again(rig: Rig) -> None:
    """After ack_wait_seconds, as the next attempt."""
    await rig.make()
    consumer = await rig.open(ack_wait_seconds=rig.step_seconds)
    await rig.append("1")
    since = rig.time.now()
    await rig.take(consumer, 1)
    for attempt in (2, 3):
        delivery = await rig.take_after(consumer, rig.step_seconds, since)
        since = rig.time.now()
        assert (delivery.record.event.id, delivery.attempt) == ("1", attempt)
    await delivery.ack()
    await rig.until_pending(consumer, 0)


@_case
async def what_is_extended_does_not_come_again(rig: Rig) -> None:
    """As long as it is extended in time."""
    await rig.make()
    consumer = await rig.open(ack_wait_seconds=4 * rig.step_seconds)
    await rig.append("1")
    [delivery] = await rig.take(consumer, 1)
    for _ in range(6):
        await rig.time.pass_(rig.step_seconds)
        await delivery.extend()
        await rig.nothing_for(consumer)
    await delivery.ack()
    await rig.until_pending(consumer, 0)


@_case
async def a_retry_comes_after_its_delay(rig: Rig) -> None:
    """And not before; each time as one more attempt."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1")
    [delivery] = await rig.take(consumer, 1)
    for attempt in (2, 3, 4):
        since = rig.time.now()
        await delivery.retry(rig.step_seconds)
        delivery = await rig.take_after(consumer, rig.step_seconds, since)
        assert (delivery.record.event.id, delivery.attempt) == ("1", attempt)


@_case
async def a_retry_without_delay_comes_at_once(rig: Rig) -> None:
    """A delay of zero."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1")
    [delivery] = await rig.take(consumer, 1)
    await delivery.retry(0.0)
    [delivery] = await rig.take(consumer, 1)
    assert delivery.attempt == 2


@_case
async def a_retry_may_outlast_the_ack_wait(rig: Rig) -> None:
    """The delay counts, not the time to acknowledge."""
    await rig.make()
    consumer = await rig.open(ack_wait_seconds=rig.step_seconds)
    await rig.append("1")
    [delivery] = await rig.take(consumer, 1)
    since = rig.time.now()
    await delivery.retry(3 * rig.step_seconds)
    delivery = await rig.take_after(consumer, 3 * rig.step_seconds, since)
    assert delivery.attempt == 2


@_case
async def a_retry_does_not_hold_up_others(rig: Rig) -> None:
    """What waits for its delay lets the next records pass."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1", "2")
    [first] = await rig.take(consumer, 1)
    await first.retry(1000.0)
    [second] = await rig.take(consumer, 1)
    assert second.record.event.id == "2"


@_case
async def settling_twice_has_no_further_effect(rig: Rig) -> None:
    """The first word counts."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1", "2")
    first, second = await rig.take(consumer, 2)
    await first.ack()
    await first.retry(0.0)
    since = rig.time.now()
    await second.retry(rig.step_seconds)
    await second.ack()
    again = await rig.take_after(consumer, rig.step_seconds, since)
    assert again.record.event.id == "2"
    await again.ack()
    await rig.until_pending(consumer, 0)


@_case
async def no_more_is_in_flight_than_allowed(rig: Rig) -> None:
    """Until something is acknowledged."""
    await rig.make()
    consumer = await rig.open(max_in_flight=2)
    await rig.append("1", "2", "3")
    first, _ = await rig.take(consumer, 2)
    await rig.nothing_for(consumer)
    await first.ack()
    [third] = await rig.take(consumer, 1)
    assert third.record.event.id == "3"


@_case
async def what_waits_for_a_retry_is_in_flight(rig: Rig) -> None:
    """It counts against max_in_flight too."""
    await rig.make()
    consumer = await rig.open(max_in_flight=1)
    await rig.append("1", "2")
    [first] = await rig.take(consumer, 1)
    since = rig.time.now()
    await first.retry(rig.step_seconds)
    again = await rig.take_after(consumer, rig.step_seconds, since)
    assert again.record.event.id == "1"
    await again.ack()
    [second] = await rig.take(consumer, 1)
    assert second.record.event.id == "2"


@_case
async def pending_counts_what_waits_and_what_is_under_way(rig: Rig) -> None:
    """Not what was acknowledged."""
    await rig.make()
    consumer = await rig.open()
    assert await consumer.pending() == 0
    await rig.append("1", "2", "3")
    await rig.until_pending(consumer, 3)
    first, second = await rig.take(consumer, 2)
    await rig.until_pending(consumer, 3)
    await first.ack()
    await rig.until_pending(consumer, 2)
    await second.retry(1000.0)
    await rig.until_pending(consumer, 2)


@_case
async def the_oldest_that_was_not_delivered_is_known(rig: Rig) -> None:
    """By when it was stored; what was delivered, done or not, and what keys leave out, does not count."""
    await rig.make()
    consumer = await rig.open(keys=("a", "b.>"))
    assert await consumer.waiting_since() is None
    await rig.append("0", key="c")
    await rig.time.pass_(rig.step_seconds)
    await rig.append("1", key="b.x")
    await rig.time.pass_(rig.step_seconds)
    await rig.append("2", key="a")
    at = {stored.event.id: stored.stored_at for stored in await rig.stored()}
    await rig.until_pending(consumer, 2)
    assert await consumer.waiting_since() == at["1"]
    [first] = await rig.take(consumer, 1)
    assert await consumer.waiting_since() == at["2"]
    await first.retry(1000.0)
    assert await consumer.waiting_since() == at["2"]
    await rig.take(consumer, 1)
    assert await consumer.waiting_since() is None
    await rig.append("3", key="c")
    assert await consumer.waiting_since() is None


@_case
async def a_reader_beside_takes_what_waits_longest(rig: Rig) -> None:
    """One more reader of the same consumer, for a while: it gets what comes next, and leaves the rest."""
    await rig.make()
    consumer = await rig.open()
    await rig.append(*(str(number) for number in range(10)))
    under_way = await rig.take(consumer, 2)
    name = "trigger.contract.reader"
    beside = await rig.log.consumer(ConsumerSpec(rig.stream, name), keep=True)
    taken = await rig.take(beside, 3)
    assert [each.record.event.id for each in taken] == ["2", "3", "4"]
    for each in (*taken, *under_way):
        await each.ack()
    await beside.close()
    await rig.until_pending(consumer, 5)
    rest = await rig.take(consumer, 5)
    assert [each.record.event.id for each in rest] == ["5", "6", "7", "8", "9"]


@_case
async def outstanding_counts_what_was_delivered_and_not_acknowledged(rig: Rig) -> None:
    """To whichever reader, and what waits for a retry too; not what was never delivered."""
    await rig.make()
    one, two = await rig.open(), await rig.open()
    await rig.append("1", "2", "3")
    assert await one.outstanding() == 0
    [first] = await rig.take(one, 1)
    assert (await one.outstanding(), await two.outstanding()) == (1, 1)
    [second] = await rig.take(two, 1)
    assert (await one.outstanding(), await two.outstanding()) == (2, 2)
    await second.retry(1000.0)
    await first.ack()
    await rig.until_pending(one, 2)
    assert (await one.outstanding(), await two.outstanding()) == (1, 1)


@_case
async def each_consumer_gets_every_record(rig: Rig) -> None:
    """Consumers are apart."""
    await rig.make()
    one, other = await rig.open("trigger.a.one"), await rig.open("trigger.a.other")
    await rig.append("1")
    for consumer in (one, other):
        [delivery] = await rig.take(consumer, 1)
        assert delivery.record.event.id == "1"


@_case
async def two_readers_of_one_consumer_share(rig: Rig) -> None:
    """Each record goes to one of them."""
    await rig.make()
    one, other = await rig.open(), await rig.open()
    await rig.append(*map(str, range(10)))
    taken: list[str] = []

    async def read(consumer: Consumer) -> None:
        while len(taken) < 10:
            deliveries = await consumer.fetch(1)
            taken.extend(each.record.event.id for each in deliveries)

    readers = [asyncio.ensure_future(read(each)) for each in (one, other)]

    async def all_taken() -> None:
        while len(taken) < 10:
            await rig.time.settle()

    await rig.soon(all_taken())
    await cancel(*readers)
    assert sorted(taken) == [str(number) for number in range(10)]


@_case
async def a_reader_that_closes_leaves_the_consumer(rig: Rig) -> None:
    """What it did not acknowledge comes to the next reader."""
    await rig.make()
    consumer = await rig.open(ack_wait_seconds=rig.step_seconds)
    await rig.append("1", "2")
    since = rig.time.now()
    first, _ = await rig.take(consumer, 2)
    await first.ack()
    await rig.until_pending(consumer, 1)
    await consumer.close()
    again = await rig.open(ack_wait_seconds=rig.step_seconds)
    delivery = await rig.take_after(again, rig.step_seconds, since)
    assert (delivery.record.event.id, delivery.attempt) == ("2", 2)


@_case
async def records_are_read_from_a_time_on(rig: Rig) -> None:
    """Those before it are left out, those of other keys too; of a time to come there are none."""
    await rig.make()
    await rig.append("1", "2")
    [_, second] = [stored async for stored in rig.log.read(rig.stream, ">")]
    await rig.time.pass_(rig.step_seconds)
    await rig.append("3")
    [*_, third] = [stored async for stored in rig.log.read(rig.stream, ">")]
    assert third.stored_at > second.stored_at

    async def ids(since: float, key: str = ">") -> list[str]:
        return [stored.event.id async for stored in rig.log.read(rig.stream, key, since=since)]

    assert (await ids(0.0))[-2:] == ["2", "3"]
    assert await ids(second.stored_at + (third.stored_at - second.stored_at) / 2) == ["3"]
    assert await ids(third.stored_at) == ["3"]
    assert await ids(third.stored_at, "nothing.>") == []
    assert await ids(third.stored_at + 3600.0) == []
    with pytest.raises(EventLogError):
        _ = [stored async for stored in rig.log.read("nothing", ">", since=third.stored_at)]


@_case
async def consumers_are_listed_and_removed(rig: Rig) -> None:
    """By name, sorted."""
    await rig.make()
    for name in ("trigger.a.two", "trigger.a.one"):
        await rig.open(name)
    assert await rig.log.consumers(rig.stream) == ["trigger.a.one", "trigger.a.two"]
    await rig.log.remove_consumer(rig.stream, "trigger.a.one")
    await rig.log.remove_consumer(rig.stream, "trigger.a.one")
    assert await rig.log.consumers(rig.stream) == ["trigger.a.two"]


@_case
async def a_removed_consumer_ends_its_reader(rig: Rig) -> None:
    """fetch raises, whether it waits already or is called later."""
    await rig.make()
    consumer = await rig.open()
    fetching = await rig.in_background(_fetch(consumer))
    await rig.log.remove_consumer(rig.stream, "trigger.contract.reader")
    with pytest.raises(EventLogError):
        await rig.soon(fetching)
    with pytest.raises(EventLogError):
        await rig.soon(consumer.fetch(1))


@_case
async def a_consumer_made_again_starts_anew(rig: Rig) -> None:
    """Its place is forgotten with it."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1")
    for delivery in await rig.take(consumer, 1):
        await delivery.ack()
    await rig.until_pending(consumer, 0)
    await consumer.close()
    await rig.log.remove_consumer(rig.stream, "trigger.contract.reader")
    [delivery] = await rig.take(await rig.open(), 1)
    assert (delivery.record.event.id, delivery.attempt) == ("1", 1)


# --- read, purge, trim, tail --------------------------------------------------------------------------------


@_case
async def read_selects_by_key(rig: Rig) -> None:
    """Exact, below, or all."""
    await rig.make()
    for key in ("a", "a.x", "a.x.y", "ab.x", "b"):
        await rig.append(key, key=key)
    assert await rig.ids("a") == ["a"]
    assert await rig.ids("a.>") == ["a.x", "a.x.y"]
    assert await rig.ids("none") == []
    assert await rig.ids(">") == ["a", "a.x", "a.x.y", "ab.x", "b"]


@_case
async def read_gives_all_however_many(rig: Rig) -> None:
    """More than fit into one answer."""
    await rig.make()
    ids = [str(number) for number in range(700)]
    await rig.append(*ids)
    await rig.append("other", key="other")
    assert await rig.ids("some.key") == ids


@_case
async def read_gives_large_records(rig: Rig) -> None:
    """More bytes than go into one answer."""
    await rig.make()
    data = b"x" * (3 * 1024 * 1024)
    for number in range(5):
        await rig.log.append(rig.stream, [Record("some.key", str(number), event(str(number), data))])
    stored = await rig.stored()
    assert [(each.event.id, len(each.event.data or b"")) for each in stored] == [
        (str(number), len(data)) for number in range(5)
    ]


@_case
async def the_newest_come_first(rig: Rig) -> None:
    """Page by page, down to the first, with what is left of each key."""
    await rig.make()
    assert await _newest(rig, ">", 2) == []
    await rig.append(*(f"a{number}" for number in range(5)), key="a")
    await rig.append(*(f"b{number}" for number in range(1200)), key="b.x")
    await rig.append(*(f"a{number}" for number in range(5, 8)), key="a")
    await rig.append("c", key="c")
    assert await _newest(rig, ">", 3) == [["c", "a7", "a6"]]
    assert await _newest(rig, "none", 3) == []
    assert await _newest(rig, "a", 3, pages=9) == [["a7", "a6", "a5"], ["a4", "a3", "a2"], ["a1", "a0"]]
    assert await _newest(rig, "b.>", 2, pages=2) == [["b1199", "b1198"], ["b1197", "b1196"]]
    everything = [each for page in await _newest(rig, "b.>", 250, pages=9) for each in page]
    assert everything == [f"b{number}" for number in reversed(range(1200))]
    await rig.log.purge(rig.stream, "b.>")
    assert await _newest(rig, ">", 250) == [["c", *(f"a{number}" for number in reversed(range(8)))]]
    with pytest.raises(EventLogError):
        await rig.log.newest("nothing", ">", 1)


@_case
async def the_newest_come_in_bounded_pages(rig: Rig) -> None:
    """However large the records are."""
    await rig.make()
    data = b"x" * (3 * 1024 * 1024)
    for number in range(5):
        await rig.log.append(rig.stream, [Record("some.key", str(number), event(str(number), data))])
    pages = await _newest(rig, ">", 5, pages=9)
    assert [each for page in pages for each in page] == ["4", "3", "2", "1", "0"]
    assert len(pages[0]) < 4


async def _newest(rig: Rig, key: str, limit: int, *, pages: int = 1) -> list[list[str]]:
    """The ids of the events of some pages."""
    found: list[list[str]] = []
    before: int | None = None
    while len(found) < pages and (page := await rig.log.newest(rig.stream, key, limit, before=before)):
        found.append([stored.event.id for stored in page])
        before = page[-1].sequence
    return found


@_case
async def purge_removes_what_is_under_a_key(rig: Rig) -> None:
    """And nothing else."""
    await rig.make()
    for key in ("a.x", "a.y", "ab.x", "b"):
        await rig.append(key, key=key)
    await rig.log.purge(rig.stream, "b")
    assert await rig.ids() == ["a.x", "a.y", "ab.x"]
    await rig.log.purge(rig.stream, "a.>")
    assert await rig.ids() == ["ab.x"]
    await rig.log.purge(rig.stream, "a.>")


@_case
async def what_is_purged_is_not_delivered(rig: Rig) -> None:
    """A consumer that waited for it waits for it no more."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1", key="a")
    await rig.append("2", key="b")
    await rig.log.purge(rig.stream, "a")
    [delivery] = await rig.take(consumer, 1)
    assert delivery.record.event.id == "2"
    await delivery.ack()
    await rig.until_pending(consumer, 0)


@_case
async def what_is_purged_while_it_is_worked_on_takes_no_other_with_it(rig: Rig) -> None:
    """Of three that are worked on, the second is purged and the third acknowledged: the first comes again."""
    await rig.make()
    consumer = await rig.open(ack_wait_seconds=rig.step_seconds)
    for name in ("1", "2", "3"):
        await rig.append(name, key=f"a.{name}")
    since = rig.time.now()
    _, purged, last = await rig.take(consumer, 3)
    await rig.log.purge(rig.stream, "a.2")
    await last.ack()
    await purged.ack()
    again = await rig.take_after(consumer, rig.step_seconds, since)
    assert (again.record.event.id, again.attempt) == ("1", 2)
    await again.ack()
    await rig.until_pending(consumer, 0)


@_case
async def trim_removes_what_is_old_and_delivered(rig: Rig) -> None:
    """Without a consumer, all that is old."""
    await rig.make()
    await rig.append("1", "2")
    await rig.time.pass_(rig.step_seconds)
    at = rig.time.now()
    await rig.time.pass_(rig.step_seconds)
    await rig.append("3")
    await rig.log.trim(rig.stream, at)
    assert await rig.ids() == ["3"]
    await rig.log.trim(rig.stream, at)
    assert await rig.ids() == ["3"]


@_case
async def trim_keeps_what_a_consumer_waits_for(rig: Rig) -> None:
    """However old it is."""
    await rig.make()
    consumer = await rig.open()
    idle = await rig.open("trigger.contract.idle", keys=("nothing",))
    await rig.append("1", "2", "3")
    first, _ = await rig.take(consumer, 2)
    await first.ack()
    await rig.until_pending(consumer, 2)
    assert await idle.pending() == 0
    await rig.time.pass_(rig.step_seconds)
    await rig.log.trim(rig.stream, rig.time.now())
    assert await rig.ids() == ["2", "3"]


@_case
async def trim_removes_what_no_consumer_was_ever_to_have(rig: Rig) -> None:
    """Though it is older than all that one has acknowledged, or none of it is."""
    await rig.make()
    usual = await rig.open("trigger.contract.usual", keys=("usual",))
    rare = await rig.open("trigger.contract.rare", keys=("rare", "seldom"))
    await rig.append("1", "2", key="usual")
    await rig.append("3", key="rare")
    await rig.append("4", key="usual")
    for delivery in await rig.take(usual, 3):
        await delivery.ack()
    await rig.take(rare, 1)
    await rig.until_pending(usual, 0)
    await rig.time.pass_(rig.step_seconds)
    await rig.log.trim(rig.stream, rig.time.now())
    assert await rig.ids() == ["3", "4"]


@_case
async def trim_of_everything_leaves_an_empty_stream(rig: Rig) -> None:
    """Which takes records as before."""
    await rig.make()
    await rig.append("1")
    await rig.time.pass_(rig.step_seconds)
    await rig.log.trim(rig.stream, rig.time.now())
    assert await rig.ids() == []
    assert await rig.append("2") == [True]
    assert await rig.ids() == ["2"]


@_case
async def trim_of_all_time_removes_what_was_delivered(rig: Rig) -> None:
    """However young it is."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1", "2")
    [first] = await rig.take(consumer, 1)
    await first.ack()
    await rig.until_pending(consumer, 1)
    await rig.log.trim(rig.stream, math.inf)
    assert await rig.ids() == ["2"]


@_case
async def records_end_with_their_age(rig: Rig) -> None:
    """max_age_seconds removes them, delivered or not."""
    await rig.make(max_age_seconds=rig.step_seconds)
    await rig.append("1")

    async def gone() -> None:
        while await rig.ids():
            await rig.time.pass_(rig.step_seconds)

    await rig.soon(gone())


@_case
async def tail_gives_what_comes_from_its_call_on(rig: Rig) -> None:
    """In order, however many look on."""
    await rig.make()
    await rig.append("1")
    tails = [await rig.log.tail(rig.stream) for _ in range(2)]
    await rig.append("2", "3")
    for tail in tails:
        seen = [(await rig.soon(anext(tail))).event.id for _ in range(2)]
        assert seen == ["2", "3"]
        await tail.aclose()


@_case
async def tail_does_not_give_duplicates(rig: Rig) -> None:
    """Only what is new."""
    await rig.make()
    tail = await rig.log.tail(rig.stream)
    await rig.append("1")
    await rig.append("1")
    await rig.append("2")
    assert [(await rig.soon(anext(tail))).event.id for _ in range(2)] == ["1", "2"]
    await tail.aclose()


@_case
async def tail_is_no_consumer(rig: Rig) -> None:
    """It is not listed, and holds nothing back."""
    await rig.make()
    tail = await rig.log.tail(rig.stream)
    assert await rig.log.consumers(rig.stream) == []
    await rig.append("1")
    await rig.time.pass_(rig.step_seconds)
    await rig.log.trim(rig.stream, rig.time.now())
    assert await rig.ids() == []
    await tail.aclose()


@_case
async def what_is_settled_after_a_removal_is_ignored(rig: Rig) -> None:
    """A delivery may outlive its record and its consumer."""
    await rig.make()
    consumer = await rig.open()
    await rig.append("1", "2", "3")
    first, second, third = await rig.take(consumer, 3)
    await rig.log.purge(rig.stream, ">")
    await first.retry(0.0)
    await rig.log.remove_consumer(rig.stream, "trigger.contract.reader")
    await second.ack()
    await third.extend()


# --- those who share a log ----------------------------------------------------------------------------------


@_case
async def a_guard_shuts_out_who_was_there_before(rig: Rig) -> None:
    """What is appended under an old guard is refused, a duplicate perhaps as such; a new guard may append."""
    await rig.make()
    await rig.append("first", key="lead.a")
    old = Guard("lead.>", (await rig.stored("lead.>"))[-1].sequence)
    assert await rig.log.append(rig.stream, [record("1")], guard=old) == [True]
    assert await rig.log.append(rig.stream, [record("1")], guard=old) == [False]
    await rig.append("second", key="lead.b")
    new = Guard("lead.>", (await rig.stored("lead.>"))[-1].sequence)
    with pytest.raises(SupersededError):
        await rig.log.append(rig.stream, [record("2")], guard=old)
    with contextlib.suppress(SupersededError):
        assert await rig.log.append(rig.stream, [record("1")], guard=old) == [False]
    await rig.log.purge(rig.stream, "lead.a")
    assert await rig.log.append(rig.stream, [record("3")], guard=new) == [True]
    assert await rig.ids("some.key") == ["1", "3"]


@_case
async def a_guard_that_is_gone_holds_no_more(rig: Rig) -> None:
    """Nor does one for several records at once."""
    await rig.make()
    await rig.append("first", key="lead.a")
    guard = Guard("lead.>", (await rig.stored("lead.>"))[-1].sequence)
    with pytest.raises(EventLogError, match="2 records"):
        await rig.log.append(rig.stream, [record("1"), record("2")], guard=guard)
    await rig.log.purge(rig.stream, "lead.>")
    with pytest.raises(SupersededError):
        await rig.log.append(rig.stream, [record("1")], guard=guard)
    assert await rig.ids() == []


@_case
async def a_guard_of_no_record_makes_a_key_once(rig: Rig) -> None:
    """Sequence 0 stands for no record: of two that make a key one does, and again once it was purged."""
    await rig.make()
    await rig.append("other", key="some.other")
    for key, below in (("some.key", "some.key"), ("deep.key.a", "deep.key.>")):
        nothing = Guard(below, 0)
        for turn in ("first", "second", "third"):
            names = [f"{key} {turn} {index}" for index in range(3)]
            made = await asyncio.gather(
                *(rig.log.append(rig.stream, [record(each, key)], guard=nothing) for each in names),
                return_exceptions=True,
            )
            assert made.count([True]) == 1
            assert sum(isinstance(each, SupersededError) for each in made) == len(names) - 1
            assert await rig.ids(below) == [names[made.index([True])]]
            with pytest.raises(SupersededError):
                await rig.log.append(rig.stream, [record(f"{key} {turn} late", key)], guard=nothing)
            await rig.log.purge(rig.stream, below if turn == "first" else key)
            assert await rig.ids(below) == []
            # What was there is a duplicate still: who makes a key anew gives it an identity of its own.
            again = record(names[made.index([True])], key)
            assert await rig.log.append(rig.stream, [again], guard=nothing) == [False]
    assert await rig.ids() == ["other"]


@_case
async def a_guard_of_no_record_holds_after_a_trim(rig: Rig) -> None:
    """What was trimmed is not there either."""
    await rig.make()
    nothing = Guard("some.key", 0)
    assert await rig.log.append(rig.stream, [record("1", "some.key")], guard=nothing) == [True]
    await rig.log.trim(rig.stream, math.inf)
    assert await rig.log.append(rig.stream, [record("2", "some.key")], guard=nothing) == [True]
    with pytest.raises(SupersededError):
        await rig.log.append(rig.stream, [record("3", "some.key")], guard=nothing)
    assert await rig.ids() == ["2"]


@_case
async def a_consumer_has_the_revision_that_it_was_brought_to_last(rig: Rig) -> None:
    """By whomever; with ``keep`` nothing is changed, and what is not there is made."""
    await rig.make()
    mine = await rig.log.consumer(
        ConsumerSpec(rig.stream, "trigger.x", keys=("one",), revision="1"), keep=True
    )
    assert await mine.revision() == "1"
    theirs = await rig.log.consumer(ConsumerSpec(rig.stream, "trigger.x", keys=("two",), revision="2"))
    kept = await rig.log.consumer(
        ConsumerSpec(rig.stream, "trigger.x", keys=("one",), revision="1"), keep=True
    )
    assert [await each.revision() for each in (mine, theirs, kept)] == ["2", "2", "2"]
    await rig.append("a", key="one")
    await rig.append("b", key="two")
    [delivery] = await rig.take(kept, 1)
    assert delivery.record.event.id == "b"
    await delivery.ack()
