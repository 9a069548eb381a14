"""Everything that was accepted ends, whatever a function, a caller or a blob store makes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.call_world import OK, call_world
from tests.unit.events.test_explain import send
from tests.unit.events.world import (
    BROKER,
    answer,
    event,
    part,
    trigger,
    world,
)
from torpor.errors import AnswerTooLargeError, BlobDamagedError, RecordTooLargeError, StreamFullError
from torpor.events import names
from torpor.events.callbacks import CallbackSender
from torpor.events.claims import Claims
from torpor.events.dispatcher import Retention
from torpor.events.explain import Explainer
from torpor.events.log import StreamSpec
from torpor.events.memory import MemoryDelivery
from torpor.spec.history import Question
from torpor.spec.models import Batch, Delivery, Join
from torpor.transport import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.binding import Headers
    from torpor.events.log import Guard, Record

STRUCTURED = [(b"content-type", b"application/cloudevents+json")]
DEEP = b"[" * 300 + b"]" * 300


def refusing(it: Any, stream: str, monkeypatch: pytest.MonkeyPatch, *, most_bytes: int) -> None:
    """Have the log find records of a stream too large whose attributes have more than that."""
    append = it.append

    async def refused(to: str, records: Sequence[Record], *, guard: Guard | None = None) -> list[bool]:
        for each in records:
            size = sum(map(len, each.event.attributes.values()))
            if to == stream and size + each.spare_bytes > most_bytes:
                raise RecordTooLargeError(f"event {each.event.id!r} has {size} bytes")
        return list(await append(to, records, guard=guard))

    monkeypatch.setattr(it, "append", refused)


# --- events -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [{}, {"ordering": "key"}, {"batch": Batch(size=2, wait_seconds=1.0)}],
    ids=["singly", "key", "batch"],
)
def test_a_reply_that_is_nested_too_deeply_is_a_dead_letter(more: dict[str, Any]) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(**more))
            body = b'{"specversion":"1.0","id":"r","source":"/s","type":"r","data":%b}' % DEEP
            it.functions.behave = lambda *_: Response(200, STRUCTURED, body)
            await it.publish(event("1", partitionkey="k"))
            await it.advance(60.0)
            assert len(it.functions.calls) == 1
            [letter] = await it.dead()
            assert "nested too deeply" in letter.attributes["torporerror"]
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize("more", [{}, {"batch": Batch(size=2, wait_seconds=1.0)}], ids=["singly", "batch"])
def test_an_answer_that_is_too_large_is_a_dead_letter_at_once(more: dict[str, Any]) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(**more))
            it.functions.behave = lambda *_: AnswerTooLargeError("the answer is larger than 9 bytes")
            await it.publish(event("1"), event("2"))
            await it.advance(60.0)
            assert sorted(each for call in it.functions.calls for each in call[2]) == ["1", "2"]
            reason = "the function's answer is too large: the answer is larger than 9 bytes"
            assert {each.attributes["torporerror"] for each in await it.dead()} == {reason}
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize("more", [{}, {"batch": Batch(size=2, wait_seconds=1.0)}], ids=["singly", "batch"])
def test_while_a_broker_is_full_its_functions_are_not_called_again_and_again(more: dict[str, Any]) -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=20_000)) as it:
            await it.declare(trigger("t", "a", **more))
            it.functions.gate = asyncio.Event()
            with contextlib.suppress(StreamFullError):
                for number in range(100):
                    await it.publish(event(str(number), data=b"x" * 400))
            ids = {each.id for each in await it.events("a")}
            assert 10 < len(ids) < 100
            it.functions.behave = lambda events, _: answer(
                events=[event(f"{each.id}.0", "reply", b"y" * 400) for each in events]
            )
            it.functions.gate.set()
            await it.advance(300.0)
            assert Counter(each for call in it.functions.calls for each in call[2]) == dict.fromkeys(ids, 1)
            assert await it.pending() == len(ids)
            await it.log.ensure_stream(StreamSpec(names.broker_stream(BROKER), max_bytes=100_000))
            await it.advance(60.0)
            assert {each.id for each in await it.events("reply")} == {f"{each}.0" for each in ids}
            assert Counter(each for call in it.functions.calls for each in call[2]) == dict.fromkeys(ids, 1)
            assert await it.pending() == 0

    asyncio.run(run())


def test_what_one_line_is_too_large_for_is_told_of_the_others() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"), trigger("u", "b", function="g"))
            long = "q" * 45_000

            def behave(events: Sequence[Any], _: int) -> Response:
                if events[0].type == "b":
                    return answer(400)
                return answer(events=[event(f"{long}{number}", "r") for number in range(400)])

            it.functions.behave = behave
            await send(it, event("x", "a"))
            await it.publish(event("y", "b"))
            await it.advance(5.0)
            explainer = Explainer(it.log, it.clock, it.dispatcher.routes)
            told = {
                asked: [
                    step.what
                    for item in (await explainer.explain(Question(id=asked))).items
                    for step in item.steps
                ]
                for asked in "xy"
            }
            assert told == {"x": ["accepted", "delivery"], "y": ["delivery", "dead letter"]}
            assert it.dispatcher.stats.unrecorded == 1

    asyncio.run(run())


def test_a_dead_letter_that_a_crash_had_written_down_twice_is_named_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", delivery=Delivery(retry=0)))
            it.functions.behave = lambda *_: answer(400)
            ack, lost = MemoryDelivery.ack, [True]

            async def told(self: MemoryDelivery) -> None:
                if not lost or not lost.pop():
                    await ack(self)

            monkeypatch.setattr(MemoryDelivery, "ack", told)
            await send(it, event("x"))
            await it.advance(30.0)
            assert len(it.functions.calls) == 2
            [explained] = (
                await Explainer(it.log, it.clock, it.dispatcher.routes).explain(Question(id="x"))
            ).items
            assert len(explained.dead_letters) == len(await it.dead()) == 1

    asyncio.run(run())


@pytest.mark.parametrize("late", [part("g", 2, 3), part("g", 7, 10)], ids=["one-more", "another-size"])
def test_a_part_that_its_whole_group_never_had_is_a_dead_letter(late: Any) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "part", join=Join(timeout_seconds=60.0)))
            await it.publish(part("g", 0, 2), part("g", 1, 2))
            await it.publish(late, part("g", 0, 2).replace(id="again"))
            await it.advance(30.0)
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1"]]
            [letter] = await it.dead()
            assert letter.id == late.id
            assert "after its group had ended (whole)" in letter.attributes["torporerror"]
            assert await it.pending() == 0

    asyncio.run(run())


def test_late_parts_of_a_whole_group_that_is_being_delivered_wait_or_are_left_out() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "part", join=Join(timeout_seconds=60.0)))
            it.functions.gate = asyncio.Event()
            await it.publish(part("g", 0, 2), part("g", 1, 2))
            await it.publish(part("g", 2, 3), part("g", 0, 2).replace(id="again"))
            await it.advance(5.0)
            assert not await it.dead()
            it.functions.gate.set()
            await it.advance(5.0)
            assert [letter.id for letter in await it.dead()] == ["g/2"]
            assert len(it.functions.calls) == 1
            assert await it.pending() == 0

    asyncio.run(run())


def test_a_part_that_no_log_holds_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "part", join=Join(timeout_seconds=60.0)))
            refusing(it.log, names.groups_stream("default/t"), monkeypatch, most_bytes=1000)
            await it.publish(part("g", 0, 2, large="x" * 1000), part("g", 1, 2))
            await it.advance(5.0)
            [letter] = await it.dead()
            assert (letter.id, "can't be held" in letter.attributes["torporerror"]) == ("g/0", True)

    asyncio.run(run())


# --- calls --------------------------------------------------------------------------------------------------


def test_a_call_of_the_same_key_is_the_same_for_as_long_as_its_outcome_is_kept() -> None:
    async def run() -> None:
        async with call_world() as it:
            process = await it.process()
            it.far.function = lambda number: Response(400, [], b"no") if number == 1 else OK
            first = await it.call(process, idempotency_key="order-1")
            await it.advance(5.0)
            for _ in range(3):
                await it.advance(700.0)
                assert await it.call(process, idempotency_key="order-1") == first
            await it.advance(60.0)
            assert len(it.far.calls) == 1
            assert (await it.status(process, first)).state == "failed"
            await it.advance(86_400.0)
            again = await it.call(process, idempotency_key="order-1")
            assert again == first
            await it.advance(5.0)
            assert (await it.status(process, again)).state == "succeeded"

    asyncio.run(run())


def test_an_outcome_that_is_too_large_is_kept_without_what_makes_it_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with call_world() as it:
            process = await it.process()
            refusing(it.log, names.OUTCOMES, monkeypatch, most_bytes=2000)
            it.far.function = lambda _: Response(
                200, [(b"location", b"/" + b"x" * 1000), (b"etag", b"x" * 1000)], b"ok"
            )
            call_id = await it.call(process)
            await it.advance(60.0)
            status = await it.status(process, call_id)
            assert len(it.far.calls) == 1
            assert (status.state, status.reason[:25]) == ("succeeded", "its outcome is too large:")
            assert status.result is not None
            assert (status.result.headers, status.result.truncated) == ({}, True)

    asyncio.run(run())


def test_a_call_leaves_room_for_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with call_world() as it:
            process = await it.process()
            refusing(it.log, names.CALLS, monkeypatch, most_bytes=5000)
            assert (await it.post(process, f"/async-function/f/{'a' * 3000}"))[0] == 202
            assert (await it.post(process, f"/async-function/f/{'a' * 4500}"))[0] == 413

    asyncio.run(run())


class _Damaged:
    """A store whose blobs are damaged."""

    async def put(self, data: bytes, content_type: str | None = None) -> str:
        return "http://blobs/api/v1/blobs/x"

    async def read(self, reference: str, max_bytes: int) -> bytes | None:
        raise BlobDamagedError("blob x is damaged")

    async def get(self, reference: str) -> bytes:
        raise BlobDamagedError("blob x is damaged")


def test_a_call_whose_body_is_damaged_fails() -> None:
    async def run() -> None:
        async with call_world() as it:
            it.claims = Claims(_Damaged(), 10)
            process = await it.process()
            call_id = await it.call(process, body=b"y" * 50)
            await it.advance(60.0)
            status = await it.status(process, call_id)
            assert (status.state, status.reason) == ("failed", "the call's body is gone: blob x is damaged")

    asyncio.run(run())


@pytest.mark.parametrize("host", ["shop..example", ".x", f"{'a' * 64}.example", "xn--a", "xn--zzzzzzz9999"])
def test_a_callback_to_what_can_be_no_host_is_given_up(host: str) -> None:
    async def run() -> None:
        async with call_world() as it:
            sender = CallbackSender(it.far.refused)
            asked = 0

            async def sent(url: str, headers: Headers, body: bytes, timeout_seconds: float) -> Response:
                nonlocal asked
                asked += 1
                return await sender.send(f"http://{host}/done", headers, body, timeout_seconds)

            it.far.send = sent  # type: ignore[method-assign]
            process = await it.process()
            call_id = await it.call(process, x_callback_url="http://receiver.example/")
            while not process.counts.callbacks_failed:
                await it.settle()
            await it.advance(600.0)
            assert asked == 1
            status = await it.status(process, call_id)
            assert status.callback is not None
            assert status.callback.state == "failed"
            await sender.close()

    asyncio.run(run())
