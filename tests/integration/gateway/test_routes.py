"""Which request goes where, through the real Envoy, and what it says to those that go nowhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from torpor.endpoint import Endpoint, InstanceEndpoint
from torpor.problems import ProblemType

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.spec.models import Function
    from torpor.transport import Response


def assert_problem(response: Response, kind: ProblemType) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(response.body)
    assert (response.status, document["type"]) == (kind.status, kind.uri)
    assert document["status"] == kind.status
    assert document["title"] == kind.title
    assert document["detail"]
    assert response.header(b"content-type") == b"application/problem+json"
    assert document["requestId"].encode() == response.header(b"x-request-id")
    return document


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/function/hello", b"/"),
        ("/function/hello/", b"/"),
        ("/function/hello?a=b", b"/?a=b"),
        ("/function/hello/x/y?a=%20b", b"/x/y?a=%20b"),
        ("/function/hello/a%2Fb", b"/a%2Fb"),
        ("/function/hello//x", b"//x"),
        ("/function/hello.default/x", b"/x"),
        ("/function/other/../hello/x", b"/x"),
        ("/own/below?x=1", b"/own/below?x=1"),
        ("/own", b"/own"),
    ],
)
def test_what_a_function_sees_of_the_path(
    run: Any, declare: Callable[..., Function], target: str, seen: bytes
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello", paths=("/own",))], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish("default/hello", [instance.endpoint])
        assert (await world.get(target)).status == 200
        assert instance.seen[0].target == seen
        prefix = instance.seen[0].headers.get(b"x-forwarded-prefix")
        named = b"/function/hello.default" if ".default" in target else b"/function/hello"
        assert prefix == (named if target.startswith("/function/") else None)

    run(check)


def test_hosts_and_paths_lead_to_their_functions(run: Any, declare: Callable[..., Function]) -> None:
    functions: list[tuple[str, str, dict[str, Any]]] = [
        ("hello", "default", {}),
        ("hello", "images", {}),
        ("hello-2", "default", {}),
        ("site", "default", {"hosts": ("www.example.com",)}),
        ("shop", "default", {"hosts": ("www.example.com", "shop.example.com"), "paths": ("/shop",)}),
        ("wide", "default", {"paths": ("/a",)}),
        ("narrow", "default", {"paths": ("/a/b",)}),
    ]
    expected = {
        ("/function/hello", None): "default/hello",
        ("/function/hello.images", None): "images/hello",
        ("/function/hello-2/x", None): "default/hello-2",
        ("/", "hello.default.localhost"): "default/hello",
        ("/function/hello-2", "hello.images.localhost:8080"): "images/hello",
        ("/x", "www.example.com"): "default/site",
        ("/events/default/default", "www.example.com"): "default/site",
        ("/shop", "www.example.com"): "default/shop",
        ("/shop/cart", "shop.example.com"): "default/shop",
        ("/shopping", "www.example.com"): "default/site",
        ("/a", None): "default/wide",
        ("/a/bc", None): "default/wide",
        ("/a/b", None): "default/narrow",
        ("/a/b/c", "whatever.example.com"): "default/narrow",
        ("/a/b", "shop.example.com"): "default/narrow",
    }
    nowhere = [
        ("/function/unknown", None, ProblemType.UNKNOWN_FUNCTION),
        ("/function/hello.nowhere", None, ProblemType.UNKNOWN_FUNCTION),
        ("/function/hell", None, ProblemType.UNKNOWN_FUNCTION),
        ("/function/hello2", None, ProblemType.UNKNOWN_FUNCTION),
        ("/function/", None, ProblemType.UNKNOWN_FUNCTION),
        ("/function", None, ProblemType.NOT_FOUND),
        ("/", None, ProblemType.NOT_FOUND),
        ("/ab", None, ProblemType.NOT_FOUND),
        ("/cart", "shop.example.com", ProblemType.NOT_FOUND),
        ("/system/functions", None, ProblemType.NOT_FOUND),
        ("/api/v2", None, ProblemType.NOT_FOUND),
    ]

    async def check(world: Any) -> None:
        declared = [declare(name, namespace, **http) for name, namespace, http in functions]
        await world.gateway.configure(declared, events=[], api=[])
        for function in declared:
            instance = await world.instance(function.key)
            await world.gateway.publish(function.key, [instance.endpoint])
        found = {place: (await world.get(place[0], host=place[1])).body.decode() for place in expected}
        assert found == expected
        for target, host, kind in nowhere:
            assert_problem(await world.get(target, host=host), kind)

    run(check)


def test_a_path_that_is_the_root_takes_what_is_left(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        functions = [declare("root", paths=("/",)), declare("api", paths=("/apx",))]
        await world.gateway.configure(functions, events=[], api=[])
        for function in functions:
            instance = await world.instance(function.metadata.name)
            await world.gateway.publish(function.key, [instance.endpoint])
        for target in ("/", "/x", "/ap", "/apx2", "/functional", "/api2"):
            assert (await world.get(target)).body == b"root", target
        assert (await world.get("/apx/y")).body == b"api"
        assert_problem(await world.get("/function/unknown"), ProblemType.UNKNOWN_FUNCTION)
        assert_problem(await world.get("/ui"), ProblemType.NOT_FOUND)

    run(check)


def test_methods_and_the_size_of_bodies(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        function = declare("hello", methods=("GET", "POST"), max_body_bytes=10)
        await world.gateway.configure([function], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish("default/hello", [instance.endpoint])
        refused = await world.send(b"PUT", "/function/hello/x")
        assert_problem(refused, ProblemType.METHOD_NOT_ALLOWED)
        assert refused.header(b"allow") == b"GET, POST"
        assert (await world.send(b"HEAD", "/function/hello/x")).status == 405
        assert (await world.send(b"POST", "/function/hello/echo", body=b"x" * 10)).body == b"x" * 10
        for host in (None, "hello.default.localhost"):
            target = "/function/hello" if host is None else "/"
            large = await world.send(b"POST", target, host=host, body=b"x" * 11)
            assert_problem(large, ProblemType.TOO_LARGE)
        internal = [(b"torpor-function", b"default/hello")]
        answer = await world.send(b"PUT", "/x", headers=internal, body=b"x" * 20, to=world.gateway.internal)
        assert answer.status == 200
        assert len(instance.seen) == 2

    run(check)


def test_parts_of_the_platform(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        assert_problem(await world.send(b"POST", "/events/default/default"), ProblemType.UNAVAILABLE)
        events, api = await world.instance("events"), await world.instance("api")
        await world.gateway.configure([], events=[events.endpoint], api=[api.endpoint])
        assert (await world.send(b"POST", "/events/default/default", body=b"{}")).body == b"events"
        assert events.seen[0].target == b"/events/default/default"
        assert (await world.get("/api/v1/functions?x=1")).body == b"api"
        assert api.seen[0].target == b"/api/v1/functions?x=1"
        moved = await world.instance("moved")
        await world.gateway.configure([], events=[moved.endpoint], api=[])
        assert (await world.send(b"POST", "/events/default/default")).body == b"moved"
        assert_problem(await world.get("/api/v1"), ProblemType.UNAVAILABLE)

    run(check)


def test_headers_that_only_the_platform_sets(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello"), declare("other")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish("default/hello", [instance.endpoint])
        forged = [
            (b"torpor-function", b"default/other"),
            (b"Torpor-Attempt", b"7"),
            (b"x-forwarded-prefix", b"/forged"),
            (b"x-forwarded-host", b"forged"),
        ]
        response = await world.get("/function/hello/x", host="somewhere.example.com:80", headers=forged)
        assert response.body == b"instance"
        seen = instance.seen[0].headers
        assert b"torpor-attempt" not in seen
        assert seen.get(b"torpor-function") == b"default/hello"
        assert seen[b"x-forwarded-prefix"] == b"/function/hello"
        assert seen[b"x-forwarded-host"] == b"somewhere.example.com:80"
        assert seen[b"x-forwarded-proto"] == b"http"
        assert seen[b"x-forwarded-for"]
        assert seen[b"x-request-id"] == response.header(b"x-request-id")
        assert not [name for name in seen if name.startswith(b"x-envoy-")]
        internal = [
            (b"torpor-function", b"default/hello"),
            (b"torpor-attempt", b"2"),
            (b"x-request-id", b"mine"),
        ]
        response = await world.send(b"POST", "/", headers=internal, to=world.gateway.internal)
        assert response.header(b"x-request-id") == b"mine"
        assert instance.seen[1].headers[b"torpor-attempt"] == b"2"

    run(check)


def test_the_internal_listener_knows_functions_alone(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        api = await world.instance("api")
        await world.gateway.configure([declare("hello")], events=[], api=[api.endpoint])
        for key in (None, b"default/unknown", b"", b"api"):
            headers = [] if key is None else [(b"torpor-function", key)]
            answer = await world.send(b"POST", "/", headers=headers, to=world.gateway.internal)
            assert_problem(answer, ProblemType.UNKNOWN_FUNCTION)
        await world.gateway.configure([declare("hello"), declare("unknown")], events=[], api=[])
        instance = await world.instance("known by now")
        await world.gateway.publish("default/unknown", [instance.endpoint])
        known = [(b"torpor-function", b"default/unknown")]
        answer = await world.send(b"POST", "/", headers=known, to=world.gateway.internal)
        assert answer.body == b"known by now"

    run(check)


def test_requests_that_break_the_rules(run: Any, declare: Callable[..., Function], raw: Any) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        large = await world.get("/function/hello", headers=[(b"x", b"y" * 70_000)])
        document = orjson.loads(large.body)
        assert (large.status, document["type"]) == (431, ProblemType.HEADERS_TOO_LARGE.uri)
        reader, writer = await raw(world.gateway.address)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()

    run(check)


@pytest.mark.parametrize("host", [b"host: x\r\n", b""])
def test_http_1_0_is_served(run: Any, declare: Callable[..., Function], raw: Any, host: bytes) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish("default/hello", [instance.endpoint])
        instance.go_on.set()
        reader, writer = await raw(world.gateway.address)
        kept = b"GET /function/hello HTTP/1.0\r\n%bconnection: keep-alive\r\n\r\n" % host
        for _ in range(2):
            writer.write(kept)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head.partition(b"\r\n")[0]
            assert await reader.readexactly(8) == b"instance"
        writer.write(b"GET /function/hello/stream HTTP/1.0\r\n%b\r\n" % host)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")  # to the end: it closes
        assert b"chunked" not in head
        assert body == b"onetwo"
        assert all(seen.headers[b"host"] for seen in instance.seen)
        writer.close()

    run(check)


def test_what_nobody_is_called_is_named(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        unknown = ProblemType.UNKNOWN_FUNCTION
        named = assert_problem(await world.get('/function/helo/"x?token=secret'), unknown)
        assert named["detail"] == "No function is called that: /function/helo/%22x"
        long = assert_problem(await world.get("/function/" + "x" * 5000), unknown)
        assert 300 <= len(long["detail"]) < 400
        internal = [(b"torpor-function", b'default/"helo\\')]
        answer = await world.send(b"POST", "/", headers=internal, to=world.gateway.internal)
        assert assert_problem(answer, unknown)["detail"].endswith('that: default/"helo\\')

    run(check)


def test_an_instance_that_breaks_off_is_told_and_not_asked_again(
    run: Any, declare: Callable[..., Function]
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish("default/hello", [instance.endpoint])
        assert_problem(await world.send(b"POST", "/function/hello/break"), ProblemType.UPSTREAM_BROKEN)
        assert len(instance.seen) == 1

    run(check)


def test_http_2_is_spoken_to_callers(run: Any, declare: Callable[..., Function], raw: Any) -> None:
    async def check(world: Any) -> None:
        reader, writer = await raw(world.gateway.address)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        frame = await reader.readexactly(9)
        assert frame[3] == 4  # SETTINGS (RFC 9113, section 6.5)
        writer.close()

    run(check)


def test_a_thousand_functions(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        functions = [declare(f"function-{number}", methods=("GET",)) for number in range(1000)]
        await world.gateway.configure(functions, events=[], api=[])
        instance = await world.instance()
        await asyncio.gather(
            *(world.gateway.publish(function.key, [instance.endpoint]) for function in functions)
        )
        for number in (0, 500, 999):
            assert (await world.get(f"/function/function-{number}")).status == 200
            assert (await world.send(b"PUT", f"/function/function-{number}")).status == 405
        assert_problem(await world.get("/function/function-1000"), ProblemType.UNKNOWN_FUNCTION)
        loads = await world.gateway.observe()
        assert len(loads) == 1000
        assert sum(load.requests_total for load in loads.values()) == 3

    run(check)


def named(endpoint: Endpoint, name: str) -> InstanceEndpoint:
    return InstanceEndpoint(endpoint.host, endpoint.port, name)


def test_the_platform_hears_which_instance_answered_and_nobody_else(
    run: Any, declare: Callable[..., Function]
) -> None:
    internal = [(b"torpor-function", b"default/hello")]

    async def check(world: Any) -> None:
        async def ask(target: str) -> tuple[int, list[bytes]]:
            answer = await world.send(b"POST", target, headers=internal, to=world.gateway.internal)
            told = [value for name, value in answer.headers if name == b"torpor-instance"]
            return answer.status, told

        await world.gateway.configure([declare("hello")], events=[], api=[])
        one, other = [named((await world.instance()).endpoint, name) for name in ("h-1", "h-2")]
        held = [asyncio.create_task(ask(target)) for target in ("/", "/break")]  # answered by the activator
        await world.until_held(2)
        await world.gateway.publish("default/hello", [one])
        assert [await each for each in held] == [(200, [b"h-1"]), (502, [b"h-1"])]
        assert await ask("/") == (200, [b"h-1"])  # by Envoy
        assert await ask("/break") == (502, [b"h-1"])
        await world.gateway.publish("default/hello", [other])
        assert await ask("/") == (200, [b"h-2"])

    run(check)


def test_an_answer_to_a_caller_outside_does_not_say_which_instance_gave_it(
    run: Any, declare: Callable[..., Function]
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        endpoint = named((await world.instance()).endpoint, "h-1")
        held = asyncio.create_task(world.get("/function/hello"))
        await world.until_held(1)
        await world.gateway.publish("default/hello", [endpoint])
        for answer in (await held, await world.get("/function/hello")):
            assert answer.status == 200
            assert answer.header(b"torpor-instance") is None

    run(check)
