"""What a handler says of single events of a batch, and when it can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator  # noqa: TC003 - what a handler takes is read from them
from typing import Any

import orjson
import pytest

from torpor import CloudEvent, Failed, RejectError, RetryError, function
from torpor.runtime.partial import MAX_HEADER_BYTES

BATCH = {"content-type": "application/cloudevents-batch+json"}


async def send(served: Any, *data: Any, ids: tuple[str, ...] = (), asks: str = "partial") -> Any:
    head = {"specversion": "1.0", "source": "/s", "type": "t"}
    events = [
        {**head, "id": ids[index] if ids else f"e{index}", "data": each} for index, each in enumerate(data)
    ]
    return await served.request(headers=BATCH | {"torpor-batch": asks}, body=orjson.dumps(events))


@function
async def returns(numbers: list[int]) -> Failed | None:
    bad = [index for index, number in enumerate(numbers) if number < 0]
    return Failed(bad) if bad else None


@function
def yields(numbers: list[int]) -> Iterator[Any]:
    for index, number in enumerate(numbers):
        yield Failed([index]) if number < 0 else number * 2


@function
async def replies_alone(numbers: list[int]) -> int:
    return sum(numbers)


@function
async def out_of_range(numbers: list[int]) -> Failed:
    return Failed([len(numbers)])


@function
async def fails_all(events: list[CloudEvent]) -> Failed:
    return Failed(range(len(events)))


@function
async def one(number: int) -> int:
    if number == -1:
        raise RejectError("no")
    if number == -2:
        raise RetryError("later")
    if number < 0:
        raise ValueError("less than nothing")
    return number * 2


def test_a_handler_gives_back_what_it_failed_with(serve: Any) -> None:
    async def run() -> None:
        answer = await send(serve(returns), 1, -1, 2, -2, ids=("a", "b,ü", "c", "d"))
        assert (answer.status, answer.header(b"torpor-failed-ids")) == (204, b"b%2C%C3%BC,d")
        answer = await send(serve(returns), 1, 2)
        assert (answer.status, answer.header(b"torpor-failed-ids")) == (204, None)
        answer = await send(serve(replies_alone), 1, 2)
        assert [event.data for event in answer.events] == [b"3"]

    asyncio.run(run())


def test_a_handler_yields_it_beside_its_replies(serve: Any) -> None:
    async def run() -> None:
        answer = await send(serve(yields), 1, -1, 2)
        assert answer.header(b"torpor-failed-ids") == b"e1"
        assert [event.data for event in answer.events] == [b"2", b"4"]
        assert [event.attributes["fanoutsize"] for event in answer.events] == ["2", "2"]
        answer = await send(serve(yields), -1)
        assert (answer.status, answer.header(b"torpor-failed-ids")) == (204, b"e0")

    asyncio.run(run())


def test_a_handler_for_one_event_fails_with_one_event(serve: Any) -> None:
    async def run() -> None:
        answer = await send(serve(one), 1, -1, 2, -2, -3, "no number")
        assert answer.header(b"torpor-failed-ids") == b"e1,e3,e4,e5"
        assert [event.data for event in answer.events] == [b"2", b"4"]

    asyncio.run(run())


@pytest.mark.parametrize("handler", [returns, yields, one])
def test_a_caller_that_does_not_ask_for_it_is_told_that_all_failed(serve: Any, handler: Any) -> None:
    async def run() -> None:
        answer = await send(serve(handler), 1, -3, asks="whole")
        assert answer.status == (500 if handler is one else 503)
        assert answer.header(b"torpor-failed-ids") is None

    asyncio.run(run())


@pytest.mark.parametrize("handler", [returns, yields])
def test_an_event_that_came_alone_fails_alone(serve: Any, handler: Any) -> None:
    async def run() -> None:
        assert (await serve(handler).event(-1)).status == 503

    asyncio.run(run())


@function
async def returns_none_of_them(numbers: list[int]) -> Failed:
    return Failed([])


@function
def yields_none_of_them(numbers: list[int]) -> Iterator[Any]:
    yield sum(numbers)
    yield Failed([])


def test_an_event_that_came_alone_may_be_said_not_to_have_failed(serve: Any) -> None:
    async def run() -> None:
        assert (await serve(returns_none_of_them).event(1)).status == 204
        answer = await serve(yields_none_of_them).event(1)
        assert [event.data for event in answer.events] == [b"1"]

    asyncio.run(run())


def test_positions_outside_the_list_are_the_authors_fault(serve: Any) -> None:
    async def run() -> None:
        assert (await send(serve(out_of_range), 1)).status == 500

    asyncio.run(run())


def test_more_names_than_a_header_bears_are_a_failure_of_all(serve: Any) -> None:
    async def run() -> None:
        ids = tuple(f"{number}-{'x' * 1000}" for number in range(MAX_HEADER_BYTES // 1000 + 1))
        assert (await send(serve(fails_all), *ids, ids=ids)).status == 503

    asyncio.run(run())
