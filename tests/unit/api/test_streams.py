from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from torpor.api.app import ApiOptions, create
from torpor.binding import WireEvent
from torpor.errors import EventLogError
from torpor.testing.backend import FakeBackend, function_status
from torpor.testing.served import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL = "/api/v1/brokers/default/default/tail"
LOGS = "/api/v1/functions/default/hello/logs?follow=true"


def event(type_: str, index: int = 0) -> WireEvent:
    return WireEvent({"specversion": "1.0", "id": str(index), "source": "/test", "type": type_}, b'{"a": 1}')


@contextlib.contextmanager
def platform(options: ApiOptions | None = None) -> Iterator[tuple[FakeBackend, Served]]:
    backend = FakeBackend()
    backend.add(function_status("hello"))
    with served(create(backend, options)) as running:
        yield backend, running


@contextlib.contextmanager
def stream(running: Served, path: str) -> Iterator[tuple[httpx.Response, Iterator[bytes]]]:
    with (
        httpx.Client(base_url=running.url, trust_env=False) as client,
        client.stream("GET", path) as response,
    ):
        yield response, response.iter_raw()


def test_a_tail_has_every_event_from_its_answer_on() -> None:
    with platform() as (backend, running), stream(running, TAIL) as (response, chunks):
        assert response.headers["content-type"] == "application/x-ndjson"
        running.run(lambda: backend.publish("default/default", event("image.tile")))
        assert orjson.loads(next(chunks)) == {
            "specversion": "1.0",
            "id": "0",
            "source": "/test",
            "type": "image.tile",
            "data": {"a": 1},
        }


def test_a_tail_shows_only_what_every_filter_lets_through() -> None:
    query = f"{TAIL}?filter=type=image.*&filter=id=2"
    with platform() as (backend, running), stream(running, query) as (_, chunks):
        for index, type_ in enumerate(["image.tile", "text.line", "image.resized"]):
            running.run(partial(backend.publish, "default/default", event(type_, index)))
        assert orjson.loads(next(chunks))["type"] == "image.resized"


def test_a_followed_log_goes_on_after_its_last_lines() -> None:
    with platform() as (backend, running):
        running.run(lambda: backend.write("default/hello", "before"))
        with stream(running, LOGS) as (_, chunks):
            assert orjson.loads(next(chunks))["text"] == "before"
            running.run(lambda: backend.write("default/hello", "after"))
            assert orjson.loads(next(chunks))["text"] == "after"


def test_a_quiet_stream_has_empty_lines_and_loses_nothing_for_them() -> None:
    with platform(ApiOptions(quiet_seconds=0.01)) as (backend, running), stream(running, TAIL) as (_, chunks):
        assert [next(chunks), next(chunks)] == [b"\n", b"\n"]
        running.run(lambda: backend.publish("default/default", event("image.tile")))
        assert next(chunk for chunk in chunks if chunk != b"\n").endswith(b"}\n")


@pytest.mark.parametrize("path", [TAIL, LOGS])
def test_a_client_that_leaves_leaves_nothing_behind(path: str) -> None:
    with platform() as (backend, running):
        with stream(running, path):
            running.wait_until(lambda: backend.tailing() + backend.following("default/hello") == 1)
        running.wait_until(lambda: backend.tailing() + backend.following("default/hello") == 0)


def test_a_stream_whose_source_fails_is_not_taken_for_whole(caplog: pytest.LogCaptureFixture) -> None:
    with platform() as (backend, running), stream(running, TAIL) as (response, chunks):
        assert response.status_code == 200
        running.run(lambda: backend.publish("default/default", event("a")))
        next(chunks)
        running.run(lambda: backend.publish("default/default", EventLogError("the broker is away")))
        with pytest.raises(httpx.RemoteProtocolError):
            next(chunks)
    assert [each.__dict__["cause"] for each in caplog.records if "broken off" in each.getMessage()] == [
        "the broker is away"
    ]
    assert not [each for each in caplog.records if each.exc_info]


def test_too_many_streams_are_refused_until_one_ends() -> None:
    with platform(ApiOptions(max_streams=1)) as (backend, running):
        with stream(running, TAIL):
            refusal = httpx.get(running.url + LOGS, trust_env=False)
            assert refusal.status_code == 503
            assert refusal.json()["type"].endswith("/overloaded")
        running.wait_until(lambda: backend.tailing() == 0)
        with stream(running, LOGS) as (response, _):
            assert response.status_code == 200


def test_streams_end_properly_when_the_platform_does() -> None:
    with contextlib.ExitStack() as client:
        with platform() as (backend, running):
            _, chunks = client.enter_context(stream(running, TAIL))
            running.wait_until(lambda: backend.tailing() == 1)
        assert list(chunks) == []
        assert backend.tailing() == 0


def test_an_endless_upload_is_cut_off_at_the_limit() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1024

    with platform(ApiOptions(max_blob_bytes=10_000)) as (backend, running):
        # The answer may be lost with the connection that is cut; this must end, and keep nothing.
        with contextlib.suppress(httpx.TransportError), httpx.Client(trust_env=False) as client:
            response = client.put(f"{running.url}/api/v1/blobs", content=endless())
            assert response.status_code == 413
        assert backend.blobs == {}
