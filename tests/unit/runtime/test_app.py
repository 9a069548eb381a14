"""An author's own ASGI app as a function, alone and beside a handler for events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from torpor import function

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


def _app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def seen(request: Request) -> dict[str, Any]:
        return {"scheme": request.url.scheme, "client": request.client.host if request.client else ""}

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.post("/typed")
    async def typed(body: dict[str, Any]) -> int:
        return len(body)

    @app.get("/fail")
    async def fail() -> None:
        raise LookupError("hunter2")

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"begun"
            await asyncio.Event().wait()

        return StreamingResponse(chunks())

    return app


@function
async def handler(data: bytes) -> bytes:
    return data[::-1]


def test_http_goes_to_the_app_and_events_to_the_handler(serve: Any) -> None:
    async def run() -> None:
        served = serve(handler, _app())
        assert (await served.request("GET")).json == {"scheme": "http", "client": "10.0.0.9"}
        [reply] = (await served.event(b"abc", datacontenttype="text/plain")).events
        assert reply.data == b"cba"
        assert (await served.request("GET", headers=BINARY)).status == 200, "an event is POSTed"

    asyncio.run(run())


def test_an_app_alone_takes_events_as_the_http_that_they_are(serve: Any) -> None:
    async def run() -> None:
        assert (await serve(app=_app()).request(path="/echo", headers=BINARY, body=b"abc")).json == 3

    asyncio.run(run())


def test_the_app_sees_what_the_caller_used(serve: Any) -> None:
    async def run() -> None:
        headers = {"x-forwarded-proto": "https", "x-forwarded-for": "8.8.8.8, 192.0.2.7"}
        answer = await serve(app=_app()).request("GET", headers=headers)
        assert answer.json == {"scheme": "https", "client": "192.0.2.7"}
        odd = await serve(app=_app()).request("GET", headers={"x-forwarded-proto": "gopher"})
        assert odd.json["scheme"] == "http"

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/echo", "/typed"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_gets_413(serve: Any, path: Any, declared: Any) -> None:
    async def run() -> None:
        headers = {"content-type": "application/json", **({"content-length": "80"} if declared else {})}
        body = [b'{"a":"' + b"x" * 40, b"x" * 32 + b'"}']
        served = serve(app=_app(), max_body_bytes=64)
        answer = await served.request(path=path, headers=headers, body=body)
        assert (answer.status, answer.json["type"]) == (413, "https://torpor.dev/problems/too-large")

    asyncio.run(run())


def test_an_app_that_fails_tells_its_log_alone(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        served = serve(app=_app())
        answer = await served.request("GET", "/fail")
        assert answer.status == 500
        assert b"hunter2" not in answer.body
        assert served.runtime.metrics.outcomes["failed"] == 1

    asyncio.run(run())
    assert "hunter2" in caplog.text


def test_a_raw_app_that_fails_is_answered_for(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("hunter2")

    async def run() -> None:
        answer = await serve(app=app).request("GET")
        assert (answer.status, answer.json["type"]) == (500, "https://torpor.dev/problems/handler-failed")

    asyncio.run(run())


def test_the_time_is_limited(serve: Any) -> None:
    async def run() -> None:
        served = serve(app=_app(), timeout_seconds=0.05)
        answer = await served.request("GET", "/slow")
        assert (answer.status, answer.json["type"]) == (504, "https://torpor.dev/problems/timed-out")
        begun = await served.request("GET", "/stream")
        assert (begun.status, begun.body) == (200, b"begun"), "the server cuts what has begun"
        assert served.runtime.places.taken == 0
        assert served.runtime.metrics.outcomes["timed-out"] == 2

    asyncio.run(run())


def test_outcomes_are_counted_by_status(serve: Any) -> None:
    async def run() -> None:
        served = serve(app=_app())
        for path in ("/", "/nowhere"):
            await served.request("GET", path)
        assert (served.runtime.metrics.outcomes["ok"], served.runtime.metrics.outcomes["refused"]) == (1, 1)

    asyncio.run(run())


def test_the_runtimes_own_addresses_come_first(serve: Any) -> None:
    async def run() -> None:
        served = serve(handler, _app())
        assert (await served.request("GET", "/healthz/live")).status == 200
        assert (await served.request("GET", "/healthz/ready")).status == 503
        served.runtime.ready = True
        assert (await served.request("GET", "/healthz/ready")).status == 200
        served.runtime.draining = True
        draining = await served.request("GET", "/healthz/ready")
        assert (draining.status, draining.json["type"]) == (503, "https://torpor.dev/problems/draining")
        await served.event(b"x")
        text = (await served.request("GET", "/metrics")).body.decode()
        for line in (
            'torpor_invocations_total{function="fn",namespace="default",outcome="ok",revision=""} 1.0',
            'torpor_invocation_duration_seconds_count{function="fn",namespace="default",revision=""} 1.0',
            'torpor_queue_wait_seconds_count{function="fn",namespace="default",revision=""} 1.0',
            'torpor_in_flight{function="fn",namespace="default",revision=""} 0.0',
            'torpor_draining{function="fn",namespace="default",revision=""} 1.0',
        ):
            assert line in text
        assert "torpor_memory_bytes" in text
        assert "python_info" in text, "what the author's own code counts is shown too"

    asyncio.run(run())


def test_a_websocket_goes_to_the_app_or_is_closed(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})

    async def talk(served: Any) -> list[str]:
        sent: list[str] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/",
            "headers": [],
            "scheme": "ws",
            "client": None,
        }
        await served.app(scope, receive, send)
        assert served.runtime.places.taken == 0
        assert len(served.runtime.calls) == 0
        return sent

    async def run() -> None:
        assert await talk(serve(app=app)) == ["websocket.accept", "websocket.send"]
        assert await talk(serve(handler)) == ["websocket.close"]

    asyncio.run(run())
