"""A function behind a proxy that cuts a prefix off the path and says so."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st

from torpor import function
from torpor.runtime import mount

PREFIX = "/function/hello"
MOUNTED = {"x-forwarded-prefix": PREFIX, "host": "example.com"}


def _app() -> FastAPI:
    app = FastAPI()
    inner = FastAPI()
    router = APIRouter()

    @router.get("/function/hello/deep", name="deep")
    @router.get("/where", name="where")
    async def where(request: Request) -> dict[str, str]:
        return {"url": str(request.url), "made": str(request.url_for("where"))}

    @router.get("/folder/")
    async def folder() -> None: ...

    @inner.get("/leaf")
    async def leaf(request: Request) -> str:
        return str(request.url)

    app.include_router(router)
    app.mount("/inner", inner)
    return app


def test_the_docs_of_an_app_load_its_own_openapi(serve: Any) -> None:
    async def run() -> None:
        served = serve(app=_app())
        page = (await served.request("GET", "/docs", MOUNTED)).body.decode()
        [loaded] = re.findall(r"url: ['\"]([^'\"]+)['\"]", page)
        assert loaded == f"{PREFIX}/openapi.json"
        document = (await served.request("GET", loaded.removeprefix(PREFIX), MOUNTED)).json
        assert document["servers"] == [{"url": PREFIX}]
        assert "/where" in document["paths"]
        plain = await served.request("GET", "/docs")
        assert b"'/openapi.json'" in plain.body or b'"/openapi.json"' in plain.body
        assert "servers" not in (await served.request("GET", "/openapi.json")).json

    asyncio.run(run())


def test_an_app_routes_as_before_and_makes_urls_that_lead_back(serve: Any) -> None:
    async def run() -> None:
        served = serve(app=_app())
        made = f"http://example.com{PREFIX}/where"
        assert (await served.request("GET", "/where", MOUNTED)).json == {"url": made, "made": made}
        # A path of the app's own that begins as the prefix does is not taken for it.
        deep = await served.request("GET", f"{PREFIX}/deep", MOUNTED)
        assert deep.json["url"] == f"http://example.com{PREFIX}{PREFIX}/deep"
        leaf = await served.request("GET", "/inner/leaf", MOUNTED)
        assert leaf.json == f"http://example.com{PREFIX}/inner/leaf"
        moved = await served.request("GET", "/folder", MOUNTED)
        assert moved.header(b"location") == f"http://example.com{PREFIX}/folder/".encode()
        plain = await served.request("GET", "/where", {"host": "example.com"})
        assert plain.json["made"] == "http://example.com/where"

    asyncio.run(run())


def test_any_app_sees_what_asgi_says(serve: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["root_path"], scope["path"], scope["raw_path"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def run() -> None:
        served = serve(app=app)
        await served.request("GET", "/x", MOUNTED)
        await served.request("GET", "/x", {"x-forwarded-prefix": "//elsewhere.example.com"})
        await served.request("OPTIONS", "*", MOUNTED)
        await served.request("GET", "/x")

    asyncio.run(run())
    assert seen == [
        (PREFIX, f"{PREFIX}/x", f"{PREFIX}/x".encode()),
        ("", "/x", b"/x"),
        ("", "*", b"*"),
        ("", "/x", b"/x"),
    ]


def test_a_websocket_is_mounted_too(serve: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["root_path"], scope["path"]))

    async def nothing(*_: Any) -> Any:
        return {"type": "websocket.connect"}

    async def run() -> None:
        headers = [(mount.HEADER, PREFIX.encode())]
        scope: dict[str, Any] = {"type": "websocket", "path": "/x", "headers": headers, "client": None}
        await serve(app=app).app({**scope, "scheme": "ws"}, nothing, nothing)

    asyncio.run(run())
    assert seen == [(PREFIX, f"{PREFIX}/x")]


def test_the_openapi_of_a_handler_says_where_it_is(serve: Any) -> None:
    @function
    async def handler(data: bytes) -> bytes:
        return data

    async def run() -> None:
        served = serve(handler)
        assert b'href="openapi.json"' in (await served.request("GET", "/docs", MOUNTED)).body
        mounted = (await served.request("GET", "/openapi.json", MOUNTED)).json
        assert mounted["servers"] == [{"url": PREFIX}]
        assert "servers" not in (await served.request("GET", "/openapi.json")).json

    asyncio.run(run())


@pytest.mark.parametrize(
    "given_prefix",
    [b"", b"/", b"x", b"/x/", b"//x", b"/x//y", b"/x y", b"/x\n", b"/%2f", b"/<b>", b"/'", b'/"', b"/\xe9"],
)
def test_what_is_no_plain_path_counts_as_none(given_prefix: bytes) -> None:
    assert mount.prefix_of({mount.HEADER: given_prefix}) == ""


def test_a_prefix_is_bounded() -> None:
    assert mount.prefix_of({mount.HEADER: b"/" + b"x" * 511})
    assert not mount.prefix_of({mount.HEADER: b"/" + b"x" * 512})


@given(st.binary(max_size=600))
def test_a_prefix_is_printable_and_begins_one_path(value: bytes) -> None:
    prefix = mount.prefix_of({mount.HEADER: b"/" + value})
    assert prefix == "" or (prefix.isprintable() and prefix.isascii() and not prefix.endswith("/"))
    assert not prefix.startswith("//")
