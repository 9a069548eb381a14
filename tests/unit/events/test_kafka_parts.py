"""What decides about records and consumers in Kafka, without a broker."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.events.kafka_world import appended
from torpor.binding import WireEvent
from torpor.errors import EventLogError
from torpor.events import kafka_codec as codec
from torpor.events.kafka_codec import Appended, Purged, Trimmed, sequence_of
from torpor.events.kafka_index import Identities, Index, Verdict
from torpor.events.kafka_journal import Journal, purge, put, trim
from torpor.events.kafka_wire import Reader
from torpor.events.log import ConsumerSpec, Guard, Record, StreamSpec
from torpor.events.names import key_matches
from torpor.testing.contracts.rig import event, record

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = ConsumerSpec("s", "c", ack_wait_seconds=10.0, max_in_flight=4)


NO_RECORDS: list[object] = [
    [["k", 1, {}, 0]],
    [[1, "i", {}, 0]],
    [["k", "i", [], 0]],
    [["k", "i", "attributes", 0]],
    [["k", "i", {"id": 1}, 0]],
    [["k", "i", {}, 0.0]],
    [["k", "i", {}, False]],
    [["k", "i", {}, -1], ["k", "j", {}, 1]],
    [["k", "i", {}]],
    [None],
    {"a": 1},
    7,
    [["k", str(number), {}, None] for number in range(2**14)],
]


def packed(entries: object) -> bytes:
    """The value of a message that says to be a batch."""
    head = orjson.dumps(entries)
    return len(head).to_bytes(4, "big") + head


# --- messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "guard"),
    [
        ([record("1")], None),
        ([record("1")], Guard("lead.>", 7 << 14)),
        ([record("1"), record("2", "b"), Record("c", "ü", WireEvent({"id": "x"}, None))], None),
        ([Record("k", "i", event("\U0001f600", b"", datacontenttype="text/plain"))], None),
        ([], Guard("a", 0)),
    ],
)
def test_what_is_encoded_is_decoded(records: list[Record], guard: Guard | None) -> None:
    back = codec.decode(*codec.encode(records, guard))
    assert isinstance(back, Appended)
    alone = codec.decode_records(*codec.encode(records, guard))
    assert alone is not None
    assert [alone.record(place) for place in range(alone.total)] == records
    assert alone.size >= sum(len(each.event.data or b"") for each in records)
    assert [back.record(place) for place in range(len(records))] == records
    assert back.heads == list(map(codec.head, records))
    assert back.guard == guard


@pytest.mark.parametrize("change", [Purged("a.>"), Trimmed(12345)])
def test_changes_are_decoded(change: Purged | Trimmed) -> None:
    assert codec.decode(*codec.encode_change(change)) == change
    assert codec.decode_records(*codec.encode_change(change)) is None


def test_what_is_no_text_is_replaced() -> None:
    headers = [
        ("torpor-key", b"k"),
        ("torpor-identity", b"\xff"),
        ("ce_id", b"\xed\xa0\x80"),
        ("ce_a", b"\xff"),
    ]
    said = codec.decode(headers, b"")
    assert isinstance(said, Appended)
    [found] = said.all()
    assert found.event.attributes == {"id": "\ufffd" * 3, "a": "\ufffd"}


def test_a_single_event_is_in_the_binary_mode_of_the_cloudevents_binding() -> None:
    headers, value = codec.encode([record("1")])
    assert value == b"{}"
    assert ("ce_id", b"1") in headers
    assert ("ce_specversion", b"1.0") in headers
    assert ("content-type", b"application/json") in headers


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (None, b"x"),
        ([("torpor-key", b"k")], b""),
        ([("content-type", b"application/vnd.torpor.records")], b"\0\0\0\2[]rest"),
        ([("torpor-do", b"trim")], b"soon"),
        ([("torpor-guard", b"x y"), ("torpor-key", b"k"), ("torpor-identity", b"i")], b""),
        ([("torpor-key", b"k"), ("torpor-identity", b"i"), ("ce_x", None)], b""),
        ([("torpor-key", None), ("torpor-identity", b"i")], b""),
        *((codec.BATCH, packed(entries)) for entries in NO_RECORDS),
    ],
)
def test_what_others_wrote_is_an_error(headers: codec.Headers | None, value: bytes) -> None:
    with pytest.raises(EventLogError):
        codec.decode(headers, value)
    found = codec.decode_records(headers, value)
    assert (found is None) == (not headers or headers[0][0] != "torpor-guard")  # which matters not to it


def test_what_is_left_of_an_append_holds_nothing_of_the_rest() -> None:
    made = []

    def make(place: int) -> Record:
        made.append(place)
        return record(str(place))

    whole = Appended([codec.head(record(str(place))) for place in range(4)], make, Guard("a", 1))
    rest = whole.without([True, False, True, False])
    assert made == [1, 3]
    assert rest.all() == [record("1"), record("3")]
    assert rest.heads == [whole.heads[1], whole.heads[3]]
    assert rest.guard == whole.guard
    assert made == [1, 3]


def test_an_append_is_split_where_it_does_not_fit_into_a_message() -> None:
    many = [record(str(number)) for number in range(2500)]
    assert [len(part.heads) for part in codec.appends(many)] == [1000, 1000, 500]
    large = [Record("k", str(number), event(str(number), b"x" * 3 * 1024 * 1024)) for number in range(3)]
    assert [len(part.heads) for part in codec.appends(large)] == [1, 1, 1]
    assert [each for part in codec.appends(many) for each in part.all()] == many
    assert codec.appends([]) == []


# --- records ------------------------------------------------------------------------------------------------


def _append(index: Index, offset: int, at: float, *ids: str, key: str = "k") -> list[Verdict]:
    return index.apply(offset, at, appended(*(record(each, key) for each in ids)))


def test_identities_are_known_for_the_window_of_the_broker() -> None:
    index = Index(StreamSpec("s", duplicate_window_seconds=10.0))
    assert _append(index, 0, 100.0, "1") == [Verdict.NEW]
    assert _append(index, 1, 109.9, "1") == [Verdict.DUPLICATE]  # seen at 100, known before 110
    assert _append(index, 2, 110.0, "1") == [Verdict.NEW]
    assert index.under("k", 110.0) == [sequence_of(0), sequence_of(2)]


def test_the_time_of_the_broker_does_not_run_backwards() -> None:
    index = Index(StreamSpec("s", duplicate_window_seconds=10.0))
    _append(index, 0, 110.0, "1")
    assert _append(index, 1, 105.0, "1") == [Verdict.DUPLICATE]
    assert _append(index, 2, 119.0, "1") == [Verdict.DUPLICATE]  # 110 + 10 is not over


def test_identities_are_let_go_when_they_do_not_matter_any_more() -> None:
    identities = Identities()
    for number in range(1000):
        identities.add(b"%d" % number, float(number), 10.0)
    identities.forget(500.0)
    assert identities.seen_at(b"480") == -math.inf
    assert [identities.seen_at(b"%d" % number) for number in range(501, 1000)] == list(range(501, 1000))
    assert len(identities) <= 509
    identities.add(b"700", 1000.0, 10.0)
    assert identities.seen_at(b"700") == 1000.0
    identities.forget(1000.0)
    assert (len(identities), identities.seen_at(b"700")) == (0, -math.inf)


def test_what_is_old_is_hidden_before_it_is_forgotten() -> None:
    index = Index(StreamSpec("s", max_age_seconds=10.0, once_per_key=True))
    _append(index, 0, 100.0, "1")
    assert index.under(">", 109.0) == [sequence_of(0)]
    assert index.under(">", 110.0) == []
    assert not index.knows(codec.digest("2"), "k", 110.0)
    assert _append(index, 1, 110.0, "2") == [Verdict.NEW]
    assert index.bytes == codec.head(record("2", "k"))[2]


def test_what_was_carried_ends_with_its_age_too() -> None:
    index = Index(StreamSpec("s", max_age_seconds=10.0, once_per_key=True))
    index.carry(sequence_of(3), 100.0, codec.head(record("1", "k")))
    assert _append(index, 9, 200.0, "2") == [Verdict.NEW]
    assert index.under("k", 200.0) == [sequence_of(9)]


def test_records_are_found_past_what_does_not_match() -> None:
    index = Index(StreamSpec("s"))
    for offset in range(10):
        _append(index, offset, 1.0, str(offset), key="ab"[offset % 2])
    found = index.find(("b",), 0, 2)
    assert (found.sequences, found.upto) == ([sequence_of(1), sequence_of(3)], sequence_of(5))
    assert index.find(("b",), sequence_of(9) + 1, 2).upto == index.end
    assert index.count(("b",), sequence_of(5)) == 3  # 5, 7, 9
    assert index.count((), sequence_of(5)) == 5


KEYS = ("a", "a.x", "a.y", "b.x.y")
ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.just(""),
            st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 30)), min_size=1, max_size=5),
        ),
        st.tuples(st.just("purge"), st.sampled_from((*KEYS, "a.>", "b.>", ">")), st.just(0)),
        st.tuples(st.just("trim"), st.just(""), st.integers(0, 40)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(ACTIONS, st.booleans(), st.sampled_from((1, 3, 4096)))
def test_an_index_holds_what_a_plain_list_holds(
    actions: list[tuple[str, str, Any]], once: bool, block_records: int
) -> None:
    index = Index(StreamSpec("s", once_per_key=once), block_records=block_records, open_blocks=2)
    held: list[tuple[int, str]] = []
    identities: set[int] = set()
    for offset, (verb, key, number) in enumerate(actions):
        if verb == "append":
            expected = []
            for place, (of, one) in enumerate(number):
                new = one not in identities and not (once and any(of == each for _, each in held))
                expected.append(Verdict.NEW if new else Verdict.DUPLICATE)
                if new:
                    identities.add(one)
                    held.append((sequence_of(offset, place), of))
            message = appended(*(record(str(one), of) for of, one in number))
            assert index.apply(offset, 1.0, message) == expected
        elif verb == "purge":
            index.apply(offset, 1.0, Purged(key))
            held = [each for each in held if not key_matches(key, each[1])]
        else:
            index.apply(offset, 1.0, Trimmed(sequence_of(number)))
            held = [each for each in held if each[0] >= sequence_of(number)]
        for pattern in (*KEYS, "a.>", "b.>", ">"):
            under = [sequence for sequence, each in held if key_matches(pattern, each)]
            assert index.under(pattern, 1.0) == under
            assert index.newest(pattern) == max(under, default=0)
            assert index.count((pattern,), sequence_of(10)) == sum(it >= sequence_of(10) for it in under)
            found = index.find((pattern,), sequence_of(5), 3)
            assert found.sequences == [it for it in under if it >= sequence_of(5)][:3]
        every = (sequence_of(each, place) for each in range(offset + 2) for place in range(5))
        assert [it for it in every if index.holds(it)] == [sequence for sequence, _ in held]
        assert index.first() == (held[0][0] if held else index.end)
        assert len(index) == len(held)
        assert (index.bytes == 0) == (not held)


def test_keys_of_many_records_are_found_counted_and_removed_in_packed_blocks() -> None:
    index = Index(StreamSpec("s", max_age_seconds=1000.0), block_records=16, open_blocks=2)
    for offset in range(400):
        _append(index, offset, 1000.0 + offset, str(offset), key="ab"[offset % 2])
    b = [sequence_of(offset) for offset in range(1, 400, 2)]
    assert index.under("b", 1400.0) == b
    assert index.find(("b",), b[100], 1000).sequences == b[100:]
    assert index.count(("b",), b[100]) == index.count(("b", "b.>"), b[100]) == 100
    assert index.stored_at(b[0]) == 1001.0
    assert index.first_since(1100.5) == sequence_of(101)
    index.apply(400, 1400.0, Trimmed(b[30]))
    assert index.under("b", 1400.0) == b[30:]
    assert (index.count(("b",), 0), index.count(("a",), 0), len(index)) == (170, 169, 339)
    assert index.under("b", 2101.0) == b[51:]  # stored at 1103
    index.apply(401, 2101.0, Purged("x"))
    assert index.under("b", 2101.0) == b[51:]
    index.apply(402, 2101.0, Purged("b"))
    assert (index.under("b", 2101.0), index.count((), 0), index.newest("b")) == ([], 149, 0)
    assert index.first() == sequence_of(102)
    index.apply(403, 2101.0, Purged(">"))
    assert (len(index), index.bytes, index.first()) == (0, 0, index.end)
    assert _append(index, 404, 2101.0, "399", key="b") == [Verdict.NEW]  # its window has passed
    assert index.under(">", 2101.0) == [sequence_of(404)]


# --- consumers ----------------------------------------------------------------------------------------------


def _claim(limit: int, fresh: list[int], upto: int, version: int = 0) -> dict[str, object]:
    return {
        "do": "claim",
        "consumer": "c",
        "born": 0,
        "reader": "r",
        "limit": limit,
        "version": version,
        "fresh": fresh,
        "upto": upto,
    }


def _settle(*of: list[object]) -> dict[str, object]:
    return {"do": "settle", "consumer": "c", "born": 0, "of": list(of)}


def _journal(spec: ConsumerSpec = SPEC) -> Journal:
    journal = Journal()
    journal.apply(0, 100.0, [put(spec, 0, keep=False)])
    return journal


def _grants(journal: Journal, offset: int, at: float, entry: dict[str, object]) -> list[tuple[int, int]]:
    [outcome] = journal.apply(offset, at, [entry])
    return [(grant.sequence, grant.attempt) for grant in outcome.grants]


def test_of_two_claims_of_one_record_the_first_has_it() -> None:
    journal = _journal()
    assert _grants(journal, 1, 100.0, _claim(2, [10, 20, 30], 40)) == [(10, 1), (20, 1)]
    assert _grants(journal, 2, 100.0, _claim(2, [10, 20, 30], 40)) == [(30, 1)]
    assert journal.consumers["c"].next == 40


def test_a_claim_gets_no_more_than_may_be_in_flight() -> None:
    journal = _journal()
    assert len(_grants(journal, 1, 100.0, _claim(10, [1, 2, 3, 4, 5, 6], 7))) == 4
    assert _grants(journal, 2, 100.0, _claim(10, [5, 6], 7)) == []
    journal.apply(3, 100.0, [_settle([1, 1, None])])
    assert _grants(journal, 4, 100.0, _claim(10, [5, 6], 7)) == [(5, 1)]


def test_leases_and_retries_come_again_on_the_brokers_time() -> None:
    journal = _journal()
    _grants(journal, 1, 100.0, _claim(2, [1, 2], 3))
    journal.apply(2, 101.0, [_settle([2, 1, 30.0])])
    assert _grants(journal, 3, 109.9, _claim(9, [], 3)) == []  # the lease of 1 ends at 100 + 10
    assert _grants(journal, 4, 110.0, _claim(9, [], 3)) == [(1, 2)]
    assert journal.consumers["c"].next_due() == 120.0
    journal.apply(5, 119.0, [{"do": "extend", "consumer": "c", "born": 0, "of": [[1, 2]]}])
    assert _grants(journal, 6, 128.9, _claim(9, [], 3)) == []  # 119 + 10
    assert _grants(journal, 7, 131.0, _claim(9, [], 3)) == [(1, 3), (2, 2)]  # 101 + 30


@pytest.mark.parametrize("word", [[1, 1, None], [1, 1, 5.0], [9, 1, None]])
def test_an_attempt_without_a_lease_settles_nothing(word: list[object]) -> None:
    journal = _journal()
    _grants(journal, 1, 100.0, _claim(1, [1], 2))
    assert _grants(journal, 2, 110.0, _claim(1, [], 2)) == [(1, 2)]
    before = journal.dump()
    journal.apply(3, 110.0, [_settle(word)])
    assert journal.dump() == {**before, "end": 4}


def test_a_claim_by_an_older_spec_gets_nothing_new() -> None:
    journal = _journal()
    journal.apply(1, 100.0, [put(replace(SPEC, keys=("b",)), 0, keep=False)])
    assert _grants(journal, 2, 100.0, _claim(2, [1, 2], 3)) == []
    assert _grants(journal, 3, 100.0, _claim(2, [1, 2], 3, version=1)) == [(1, 1), (2, 1)]


def test_what_was_for_a_consumer_before_does_not_reach_its_successor() -> None:
    journal = _journal()
    _grants(journal, 1, 100.0, _claim(1, [1], 2))
    journal.apply(2, 100.0, [{"do": "drop", "consumer": "c"}])
    assert _grants(journal, 3, 100.0, _claim(1, [2], 3)) == []
    journal.apply(4, 100.0, [put(SPEC, 0, keep=False)])
    journal.apply(5, 100.0, [_settle([1, 1, None])])
    assert _grants(journal, 6, 100.0, _claim(1, [2], 3)) == []
    assert journal.consumers["c"].next == 0


def test_a_journal_goes_on_from_what_was_dumped() -> None:
    journal = _journal()
    _grants(journal, 1, 100.0, _claim(3, [1, 2, 3], 4))
    journal.apply(2, 101.0, [_settle([1, 1, None], [2, 1, 30.0]), trim(7), trim(5), purge()])
    other = Journal.load(codec.loads(codec.dumps(journal.dump())))
    assert other.dump() == journal.dump()
    assert (other.trimmed, other.purged) == (7, True)
    for each in (journal, other):
        assert _grants(each, 3, 200.0, _claim(9, [], 4)) == [(3, 2), (2, 2)]


@given(st.lists(st.tuples(st.sampled_from(["claim", "ack", "retry"]), st.integers(1, 6)), max_size=60))
def test_no_record_is_had_twice_at_once_and_none_is_left(steps: list[tuple[str, int]]) -> None:
    journal = _journal()
    held: dict[int, int] = {}
    done: set[int] = set()
    records = list(range(1, 21))
    for offset, (verb, number) in enumerate(steps, start=1):
        if verb == "claim":
            fresh = [each for each in records if each >= journal.consumers["c"].next]
            for sequence, attempt in _grants(journal, offset, 100.0, _claim(number, fresh, 21)):
                assert sequence not in held
                assert sequence not in done
                held[sequence] = attempt
            assert len(held) <= SPEC.max_in_flight
        elif held:
            sequence = sorted(held)[number % len(held)]
            attempt = held.pop(sequence)
            delay = None if verb == "ack" else 0.0
            journal.apply(offset, 100.0, [_settle([sequence, attempt, delay])])
            if delay is None:
                done.add(sequence)
    durable = journal.consumers["c"]
    assert {*durable.held, *done, *(each for each in records if each >= durable.next)} == set(records)


# --- reading ------------------------------------------------------------------------------------------------


class _Message:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset

    def error(self) -> None:
        return None


class _OneThread:
    """A client's consumer that gives one message after the other, once it may, and sees who asks at once."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = threading.Event()
        self._next = 0
        self._asking = threading.Lock()

    def assign(self, places: list[Any]) -> None:
        self._next = places[0].offset

    def poll(self, _: float) -> _Message:
        assert self._asking.acquire(blocking=False), "two threads ask at once"
        self.asked.set()
        self.may.wait(10)
        self._next += 1
        self._asking.release()
        return _Message(self._next - 1)

    def close(self) -> None:
        """Nothing more comes."""

    def consume(self, count: int, _: float) -> list[_Message]:
        self._next += count
        return [_Message(offset) for offset in range(self._next - count, self._next)]


class _Threads:
    """Of a wire what a reader needs."""

    async def call(self, work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)


def test_a_reader_that_was_closed_says_so() -> None:
    async def run() -> None:
        consumer: Any = _OneThread()
        threads: Any = _Threads()
        reader = Reader(threads, "topic", consumer)
        await reader.close()
        with pytest.raises(EventLogError):
            await reader.read([0])

    asyncio.run(run())


def test_a_reader_that_gives_up_takes_nothing_from_the_next_one() -> None:
    async def run() -> None:
        consumer: Any = _OneThread()
        threads: Any = _Threads()
        reader = Reader(threads, "topic", consumer)
        first = asyncio.create_task(reader.read([0, 1, 2]))
        await asyncio.to_thread(consumer.asked.wait, 10)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        second = asyncio.create_task(reader.read([0, 1, 2]))
        await asyncio.sleep(0.05)  # in which it would ask
        consumer.may.set()
        assert [message.offset() for message in await second] == [0, 1, 2]

    asyncio.run(run())
