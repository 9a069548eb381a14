from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from torpor.api.app import create
from torpor.api.client import Client
from torpor.api.places import find
from torpor.binding import WireEvent, decode
from torpor.errors import ApiError, RefusedError, UnreachableError
from torpor.testing.backend import FakeBackend, function_status
from torpor.testing.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVENT = WireEvent({"specversion": "1.0", "id": "1", "source": "/test", "type": "a.b"}, None)


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client(transport=httpx.MockTransport(answer))


def test_what_the_api_writes_the_client_reads() -> None:
    backend = FakeBackend()
    backend.add(function_status("hello"))
    backend.write("default/hello", "a\u2028b")
    with served(create(backend)) as running, Client(running.url) as client:
        assert client.functions() == [function_status("hello")]
        assert client.function("hello") == function_status("hello")
        assert client.triggers() == []
        assert client.brokers() == backend.broker_list
        assert client.status() == backend.platform
        assert client.health().healthy
        assert list(client.logs("hello", tail=10)) == backend.lines["default/hello"]
        with client.tail(filters=["type=a.*"]) as events:
            running.run(lambda: backend.publish("default/default", EVENT))
            assert next(events) == EVENT
        stored = client.put_blob(b"content", "text/plain")
        assert client.get_blob(stored.name) == b"content"


def test_a_problem_is_an_error_with_its_words() -> None:
    backend = FakeBackend()
    with served(create(backend)) as running, Client(running.url) as client:
        with pytest.raises(RefusedError) as refused:
            client.function("hello")
        assert refused.value.status == 404
        assert refused.value.detail == "There is no function 'default/hello'."
        assert refused.value.problem_type.endswith("/unknown-function")
        assert refused.value.request_id
        with pytest.raises(RefusedError), client.tail("nothing"):
            pass
        with pytest.raises(RefusedError):
            list(client.logs("hello"))


def test_a_platform_that_is_not_there_is_said_to_be_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens: a connection is refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Client(url) as client, pytest.raises(UnreachableError) as unreachable:
            client.status()
    assert (
        str(unreachable.value)
        == f"no platform answers at {url}; start one with 'torpor up', or name another with --context"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ReadTimeout("late"), "did not answer in time"),
        (httpx.RemoteProtocolError("no HTTP"), "ended the connection: no HTTP$"),
        (httpx.ReadError("[Errno 104] Connection reset by peer"), "ended the connection$"),
    ],
)
def test_a_platform_that_stops_answering_is_an_error_with_words(error: httpx.HTTPError, words: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with answering(answer) as client, pytest.raises(UnreachableError, match=words):
        client.status()


@pytest.mark.parametrize(
    "error", [httpx.RemoteProtocolError("incomplete chunked read"), httpx.ReadError("cut")]
)
def test_a_stream_that_breaks_off_is_an_error_without_the_library_s_words(error: httpx.HTTPError) -> None:
    class _Cut(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"\n"
            raise error

    with (
        answering(lambda _: httpx.Response(200, stream=_Cut())) as client,
        pytest.raises(UnreachableError, match=r"^the platform at [^ ]+ ended the connection$"),
        client.tail() as events,
    ):
        next(events)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(502, text="<html>"), "HTTP status 502 without a problem document"),
        (httpx.Response(302, headers={"location": "/"}), "HTTP status 302"),
        (
            httpx.Response(500, content=b"[1", headers={"content-type": "application/problem+json"}),
            "HTTP status 500",
        ),
        (httpx.Response(200, text="{}"), "not what this version of torpor reads"),
        (httpx.Response(200, text="<html>"), "not what this version of torpor reads"),
    ],
)
def test_an_answer_that_is_not_torpor_s_is_an_error_with_words(response: httpx.Response, words: str) -> None:
    with answering(lambda _: response) as client, pytest.raises(ApiError, match=words):
        client.status()


@pytest.mark.parametrize("number", [1, 3])
def test_events_are_sent_as_one_or_as_a_batch(number: int) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202)

    with answering(answer) as client:
        client.send([EVENT] * number, "work", "images")
    (request,) = seen
    assert request.method == "POST"
    assert request.url.path == "/events/images/work"
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    assert decode(headers, request.content) == [EVENT] * number


def test_a_function_is_called_by_its_full_name() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(500, text="no")

    with (
        answering(answer) as client,
        client.invoke("hello", "images", method="PUT", path="a/b?c=d") as response,
    ):
        assert (response.status_code, response.read()) == (500, b"no")
    assert str(seen[0].url) == "http://127.0.0.1:8080/function/hello.images/a/b?c=d"


@pytest.mark.parametrize(
    ("context", "url"),
    [
        ("local", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("https://torpor.example/base", "https://torpor.example/base"),
    ],
)
def test_a_context_is_local_or_a_url(context: str, url: str) -> None:
    assert find(context).api == url


@pytest.mark.parametrize("context", ["", "localhost:8080", "ftp://x", "http://", "http://x?y", "http://[x"])
def test_another_context_is_refused(context: str) -> None:
    with pytest.raises(ValueError, match="names no platform"):
        find(context)
