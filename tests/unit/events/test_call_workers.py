"""Calls that nobody waits for: made once accepted, tried again, called back, and lost by no crash."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.unit.events.call_world import CALLEES, OK, URL, CallWorld, Process, call_world
from tests.unit.events.world import CrashingLog
from torpor.errors import AnswerTooLargeError, BlobError, ConnectError, EventLogError, ForbiddenAddressError
from torpor.events import names
from torpor.events.claims import Claims
from torpor.events.declared import Callee
from torpor.events.lag import backlogs
from torpor.scaling.backlog import Backlog
from torpor.transport import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUSY = Response(503, [], b"busy")


def run(test: Callable[[CallWorld], Awaitable[None]]) -> None:
    async def inner() -> None:
        async with call_world() as it:
            await test(it)

    asyncio.run(inner())


def test_the_function_gets_the_request_that_was_made() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        call_id = await it.call(one, "/a%20b?c=d", b"body", method="PUT", content_type="x/y", x_mine="1")
        await it.settle()
        [got] = it.far.calls
        assert (got.to, got.method, got.target, got.body) == ("default/f", b"PUT", b"/a%20b?c=d", b"body")
        assert got.timeout_seconds == 90  # the function's own 30, and 60 while the gateway holds it
        assert got.headers == {
            b"content-type": b"x/y",
            b"x-mine": b"1",
            b"x-forwarded-prefix": b"/function/f",
            b"x-call-id": call_id.encode(),
            b"torpor-attempt": b"1",
        }
        status = await it.status(one, call_id)
        assert (status.state, status.attempts, status.reason) == ("succeeded", 1, "")
        assert status.result is not None
        assert (status.result.status, status.result.body, status.result.size_bytes) == (200, "done", 4)
        assert (one.counts.accepted, one.counts.succeeded, one.counts.failed) == (1, 1, 0)
        assert not it.far.callbacks

    run(test)


def test_it_can_be_told_how_many_calls_wait_and_since_when() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        assert one.workers.queue("default/f") is None
        it.far.gate = asyncio.Event()
        for _ in range(40):
            await it.call(one)
        await it.settle()
        await it.advance(3.0)
        queue = one.workers.queue("default/f")
        assert queue is not None
        # 32 of them are under way, and the oldest of the others came three seconds ago
        assert await backlogs(it.clock, {"calls": queue}, {"calls": True}) == {"calls": Backlog(40, 3.0)}
        assert await backlogs(it.clock, {"calls": queue}, {"calls": False}) == {"calls": Backlog(40)}
        it.far.gate.set()
        await it.settle()
        assert await backlogs(it.clock, {"calls": queue}, {"calls": True}) == {"calls": Backlog(0)}

    run(test)


def test_a_call_is_tried_again_as_an_event_is_and_its_state_can_be_watched() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.gate = asyncio.Event()
        slowly = Response(429, [(b"retry-after", b"7")], b"")
        answers: list[Response | Exception] = [BUSY, slowly, ConnectError("gone"), OK]
        it.far.function = lambda number: answers[number - 1]
        call_id = await it.call(one)
        status = await it.status(one, call_id)
        assert (status.state, status.attempts) == ("running", 1)
        it.far.gate.set()
        status = await it.status(one, call_id)
        assert (status.state, status.attempts, status.reason) == ("accepted", 1, "the function answered 503")
        await it.advance(20.0)
        # 0.4 s by the schedule, then the 7 s that were asked for, then 1.6 s; each up to a tenth longer
        times = [each.at for each in it.far.calls]
        assert 0.4 <= times[1] <= 0.44
        assert 7 <= times[2] - times[1] <= 7.7
        assert 1.6 <= times[3] - times[2] <= 1.76
        assert [each.headers[b"torpor-attempt"] for each in it.far.calls] == [b"1", b"2", b"3", b"4"]
        status = await it.status(one, call_id)
        assert (status.state, status.attempts) == ("succeeded", 4)
        assert (one.counts.retried, one.counts.succeeded) == (3, 1)

    run(test)


def test_a_final_answer_and_the_last_attempt_end_a_call_as_failed() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.function = lambda _: Response(410, [(b"content-type", b"a/b")], b"\xff")
        final = await it.status(one, await it.call(one))
        assert (final.state, final.attempts) == ("failed", 1)
        assert final.reason == "the function answered 410, which is final"
        assert final.result is not None
        assert (final.result.body, final.result.body_base64) == (None, "/w==")
        it.far.function = lambda _: ConnectError("gone")
        it.far.calls.clear()
        call_id = await it.call(one, x_callback_url=URL)
        await it.advance(1000.0)
        last = await it.status(one, call_id)
        assert (last.state, last.attempts, last.result) == ("failed", 11, None)
        assert last.reason == "the function did not answer: gone, at attempt 11, the last"
        [told] = it.far.callbacks
        assert (told.headers[b"x-function-status"], told.body) == (b"504", b"")
        it.far.function = lambda _: AnswerTooLargeError("more than 64 MiB")
        large = await it.status(one, await it.call(one))
        assert (large.state, large.attempts) == ("failed", 1)  # what it did is done: not again
        assert one.counts.failed == 3

    run(test)


def test_a_callback_is_made_once_and_tried_again_while_its_receiver_fails() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.receiver = lambda number: BUSY if number < 3 else Response(204, [], b"")
        call_id = await it.call(one, x_callback_url=URL)
        status = await it.status(one, call_id)
        assert status.callback is not None
        assert (status.state, status.callback.state, status.callback.attempts) == ("succeeded", "waiting", 1)
        assert status.callback.url == "https://receiver.example/done"
        await it.advance(60.0)
        assert len(it.far.callbacks) == 3
        assert len(it.far.calls) == 1
        assert {(each.to, each.body) for each in it.far.callbacks} == {(URL, b"done")}
        assert it.far.callbacks[0].headers == {
            b"content-type": b"text/plain",
            b"x-call-id": call_id.encode(),
            b"x-function-name": b"f",
            b"x-function-status": b"200",
            b"x-duration-seconds": b"0.000000",
        }
        status = await it.status(one, call_id)
        assert status.callback is not None
        assert (status.callback.state, status.callback.attempts) == ("delivered", 3)
        assert (one.counts.callbacks_delivered, one.counts.callbacks_retried) == (1, 2)

    run(test)


@pytest.mark.parametrize("answer", [Response(400, [], b""), ForbiddenAddressError("not there")])
def test_a_callback_that_can_never_be_made_is_given_up(answer: Response | Exception) -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.receiver = lambda _: answer
        call_id = await it.call(one, x_callback_url=URL)
        await it.advance(60.0)
        status = await it.status(one, call_id)
        assert status.callback is not None
        assert (status.state, status.callback.state, status.callback.attempts) == ("succeeded", "failed", 1)
        assert one.counts.callbacks_failed == 1

    run(test)


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "given", "status", "slug", "said"),
    [
        ("/async-function/g", {}, 404, "unknown-function", "no function 'default/g'; there are: default/f"),
        ("/async-function/f.other", {}, 404, "unknown-function", "no function 'other/f'"),
        ("/async-function/a.b.c", {}, 404, "unknown-function", "no function 'a.b.c'"),
        ("/async-function/f", {"method": "GET"}, 405, "method-not-allowed", "takes POST, PUT"),
        ("/async-function/f", {"body": b"x" * 101}, 413, "too-large", "more than 100 bytes"),
        ("/async-function/f", {"x_mine": "y" * 33_000}, 431, "headers-too-large", "at most 32768"),
        ("/async-function/f", {"x_callback_url": "mailto:a"}, 400, "malformed-request", "X-Callback-Url is"),
        ("/async-function/f", {"x_callback_url": "http://[::1]"}, 400, "malformed-request", "may not go"),
        ("/async-function/f", {"idempotency_key": "k" * 256}, 400, "malformed-request", "has 256 bytes"),
    ],
)
def test_what_can_not_be_done_is_refused_and_leaves_nothing(
    path: str, given: dict[str, str], status: int, slug: str, said: str
) -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        answered, headers, body = await it.post(one, path, **given)  # type: ignore[arg-type]
        problem = orjson.loads(body)
        assert (answered, problem["type"].rpartition("/")[2]) == (status, slug)
        assert said in problem["detail"]
        if status == 405:
            assert headers[b"allow"] == b"POST, PUT"
        assert one.stats.refused == {slug: 1}
        assert not [each async for each in it.memory.read(names.CALLS, ">")]
        assert await it.memory.consumers(names.CALLS) == []

    run(test)


def test_a_call_that_can_not_be_stored_is_not_accepted() -> None:
    async def test(it: CallWorld) -> None:
        crashing = CrashingLog(it.memory)
        it.log = crashing
        one = await it.process()
        crashing.fail_at = 1
        status, headers, _ = await it.post(one)
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert (await it.post(one))[0] == 202

    run(test)


def test_a_callers_own_key_makes_a_repeated_request_the_same_call() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        first = await it.call(one, idempotency_key="k")
        assert await it.call(one, idempotency_key="k") == first
        assert await it.call(one, idempotency_key="l") != first
        await it.advance(5.0)
        assert len(it.far.calls) == 2
        assert one.counts.accepted == 2

    run(test)


# --- crashes ------------------------------------------------------------------------------------------------


def test_what_a_process_had_in_hand_another_one_makes_and_nothing_is_made_twice() -> None:
    async def test(it: CallWorld) -> None:
        one, two = await it.process(shared=True), await it.process(shared=True)
        it.far.gate = asyncio.Event()
        ids = [await it.call(one, body=b"%d" % number, x_callback_url=URL) for number in range(5)]
        await it.settle()
        assert len(it.far.calls) == 5
        await it.end(one)
        it.far.gate.set()
        await it.advance(30.0)  # the second comes upon the function's calls, and the leases run out
        assert {(await it.status(two, each)).state for each in ids} == {"succeeded"}
        assert len(it.far.calls) == 10  # those under way at the crash, and once more
        assert sorted(each.headers[b"x-call-id"].decode() for each in it.far.callbacks) == sorted(ids)
        assert two.counts.succeeded == 5

    run(test)


def test_two_processes_share_the_calls() -> None:
    async def test(it: CallWorld) -> None:
        one, two = await it.process(shared=True), await it.process(shared=True)
        await it.call(one)
        await it.advance(10.0)
        for number in range(50):
            await it.call((one, two)[number % 2], x_callback_url=URL)
        await it.advance(10.0)
        assert len(it.far.calls) == 51
        assert len(it.far.callbacks) == 50
        assert one.counts.succeeded + two.counts.succeeded == 51

    run(test)


def test_a_call_with_an_outcome_is_not_made_again() -> None:
    async def test(it: CallWorld) -> None:
        crashing = CrashingLog(it.memory)
        it.log = crashing
        one = await it.process()
        # the first append is the call, the second its outcome, whose answer is lost
        crashing.fail_at, crashing.after = 2, True
        call_id = await it.call(one, x_callback_url=URL)
        await it.advance(30.0)
        assert (await it.status(one, call_id)).state == "succeeded"
        assert len(it.far.calls) == 1
        assert len(it.far.callbacks) == 1

    run(test)


def test_a_process_that_leaves_takes_calls_in_for_others() -> None:
    async def test(it: CallWorld) -> None:
        one, two = await it.process(shared=True), await it.process(shared=True)
        await one.workers.halt()
        call_id = await it.call(one)
        await it.advance(5.0)
        assert not it.far.calls
        await it.advance(10.0)
        assert (await it.status(two, call_id)).state == "succeeded"

    run(test)


# --- functions that go --------------------------------------------------------------------------------------


async def _consumers(it: CallWorld) -> list[str]:
    return await it.memory.consumers(names.CALLS) + await it.memory.consumers(names.CALLBACKS)


def test_calls_of_a_function_that_went_come_to_an_end_and_then_it_is_forgotten() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.function = lambda _: Response(404, [], b"")
        call_id = await it.call(one)
        await it.settle()
        await one.declare({})
        assert (await it.post(one))[0] == 404
        await it.advance(60.0)
        assert await _consumers(it) == ["call.default.f", "callback.default.f"]
        await it.advance(1000.0)
        assert (await it.status(one, call_id)).state == "failed"
        assert await _consumers(it) == []
        await one.declare(CALLEES)
        it.far.function = lambda _: OK
        assert (await it.status(one, await it.call(one))).state == "succeeded"

    run(test)


def test_among_several_processes_a_function_is_forgotten_when_that_is_asked_for() -> None:
    async def test(it: CallWorld) -> None:
        one, two = await it.process(shared=True), await it.process(shared=True)
        await it.call(one)
        await it.advance(15.0)
        await one.declare({})
        await two.declare({})
        await it.advance(15.0)
        assert await one.workers.strays() == {"default/f"}
        assert len(await _consumers(it)) == 2
        # Another process may know the function, and take a call in that this one does not expect.
        await two.declare(CALLEES)
        it.far.gate = asyncio.Event()
        call_id = await it.call(two)
        assert await one.workers.strays() == set()
        await it.end(two)
        it.far.gate.set()
        await it.advance(30.0)
        assert (await it.status(one, call_id)).state == "succeeded"
        await it.advance(15.0)
        await one.workers.remove(await one.workers.strays())
        await it.advance(30.0)
        assert await _consumers(it) == []

    run(test)


def test_no_more_calls_are_under_way_than_a_function_can_serve_and_that_may_change() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.gate = asyncio.Event()
        for _ in range(40):
            await it.call(one)
        await it.settle()
        assert len(it.far.calls) == 32
        await one.declare({"default/f": Callee(concurrency=2, timeout_seconds=7)})
        await it.settle()
        assert len(it.far.calls) == 34  # those that were under way go on beside
        assert [each.timeout_seconds for each in it.far.calls[31:]] == [90, 67, 67]
        assert one.workers.busy == 34
        it.far.gate.set()
        await it.advance(1.0)
        assert len({each.headers[b"x-call-id"] for each in it.far.calls}) == len(it.far.calls) == 40
        assert one.counts.succeeded == 40

    run(test)


# --- large bodies -------------------------------------------------------------------------------------------


class Store:
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.failing = False

    async def put(self, data: bytes, content_type: str | None = None) -> str:
        if self.failing:
            raise BlobError("the disk is gone")
        self.blobs[f"mem:/{len(self.blobs)}"] = data
        return f"mem:/{len(self.blobs) - 1}"

    async def read(self, reference: str, max_bytes: int) -> bytes | None:
        raise AssertionError(reference)

    async def get(self, reference: str) -> bytes:
        return self.blobs[reference]


def test_large_bodies_go_by_the_blob_store_both_ways() -> None:
    async def test(it: CallWorld) -> None:
        store = Store()
        it.claims = Claims(store, 50)
        one = await it.process()
        it.far.function = lambda _: Response(200, [], b"y" * 60)
        call_id = await it.call(one, body=b"x" * 70, x_callback_url=URL)
        status = await it.status(one, call_id)
        assert it.far.calls[0].body == b"x" * 70
        assert it.far.callbacks[0].body == b"y" * 60
        assert status.result is not None
        assert (status.result.blob, status.result.body, status.result.size_bytes) == ("1", None, 60)
        store.failing = True
        status = await it.status(one, await it.call(one))
        assert status.result is not None
        assert (status.result.blob, status.result.body) == (None, "y" * 60)

    run(test)


def test_without_a_blob_store_a_large_answer_is_cut_and_said_to_be() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.function = lambda _: Response(200, [], b"y" * 5_000_000)
        result = (await it.status(one, await it.call(one))).result
        assert result is not None
        assert result.body is not None
        assert (len(result.body), result.size_bytes, result.truncated) == (4 * 1024**2, 5_000_000, True)

    run(test)


# --- what is kept -------------------------------------------------------------------------------------------


def test_a_call_is_known_for_a_day_after_its_end() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        call_id = await it.call(one)
        await it.advance(86_000.0)
        assert (await it.status(one, call_id)).state == "succeeded"
        assert not [each async for each in it.memory.read(names.CALLS, ">")]
        await it.advance(1000.0)
        assert await one.reader.status(call_id) is None
        assert await one.reader.status("anything") is None

    run(test)


def test_counters_outlast_the_process_and_are_told_to_prometheus() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        await it.call(one, x_callback_url=URL)
        await it.settle()
        again = Process(it.memory, it.far, it.clock, it.claims, shared=False)
        again.stats.load(one.stats.dump())
        assert again.counts == one.counts
        told = {
            (family.name, *sample.labels.values()): sample.value
            for family in again.stats.collect()
            for sample in family.samples
        }
        assert told["torpor_calls_accepted", "default", "f"] == 1
        assert told["torpor_calls_succeeded", "default", "f"] == 1
        assert told["torpor_calls_callbacks_delivered", "default", "f"] == 1
        again.stats.forget_all_but([])
        assert again.stats.calls == {}

    run(test)


def test_a_log_that_is_away_is_waited_for() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()

        async def away(stream: str) -> list[str]:
            raise EventLogError(f"{stream} is out")

        there = it.memory.consumers
        it.memory.consumers = away  # type: ignore[method-assign]
        await it.advance(30.0)
        it.memory.consumers = there  # type: ignore[method-assign]
        call_id = await it.call(one)
        await it.advance(30.0)
        assert (await it.status(one, call_id)).state == "succeeded"

    run(test)
