from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from torpor.api.app import ApiOptions, create
from torpor.errors import EventLogError
from torpor.spec.calls import CallResult, CallStatus
from torpor.spec.status import PartStatus, ScheduleStatus, TriggerStatus
from torpor.testing.backend import FakeBackend, function_status


def call(
    backend: FakeBackend,
    path: str,
    *,
    method: str = "GET",
    options: ApiOptions | None = None,
    raise_errors: bool = True,
    **arguments: Any,
) -> httpx.Response:
    """One request to a new API on ``backend``."""

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create(backend, options), raise_app_exceptions=raise_errors)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(run())


def assert_problem(response: httpx.Response, status: int, slug: str) -> str:
    """Check that ``response`` is that problem, and return its detail."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"https://torpor.dev/problems/{slug}"
    assert document["status"] == status
    assert document["requestId"] == response.headers["x-request-id"]
    return str(document["detail"])


def test_functions_are_listed_in_order_with_the_names_of_the_declarations() -> None:
    backend = FakeBackend()
    backend.add(
        function_status("resize", "images"), function_status("hello"), function_status("split", "images")
    )
    items = call(backend, "/api/v1/functions").json()["items"]
    assert [(item["namespace"], item["name"]) for item in items] == [
        ("default", "hello"),
        ("images", "resize"),
        ("images", "split"),
    ]
    assert items[0]["scaling"]["maxScale"] == 50
    assert items[0]["containerConcurrency"] == 0


def test_one_function_is_shown() -> None:
    backend = FakeBackend()
    backend.add(function_status("hello", reason="2 instances"))
    assert call(backend, "/api/v1/functions/default/hello").json()["reason"] == "2 instances"


def test_an_unknown_function_is_a_problem_that_names_the_nearest() -> None:
    backend = FakeBackend()
    backend.add(function_status("hello"))
    for path in ("/api/v1/functions/default/helo", "/api/v1/functions/default/helo/logs"):
        detail = assert_problem(call(backend, path), 404, "unknown-function")
        assert detail == "There is no function 'default/helo'. Did you mean 'default/hello'?"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("default/nope", ""),
        ("default/helo", " Did you mean 'default/hello'?"),
        ("shop/hello", " Did you mean 'default/hello'?"),
        ("shop/helo", ""),
        ("imagse/tile", " Did you mean 'images/tile'?"),
        ("default/tile", " Did you mean 'images/tile'?"),
    ],
)
def test_only_a_name_that_is_alike_is_named_as_the_nearest(key: str, hint: str) -> None:
    backend = FakeBackend()
    for name, namespace in (("hello", "default"), ("ev", "default"), ("tile", "images")):
        backend.add(function_status(name, namespace=namespace))
    detail = assert_problem(call(backend, f"/api/v1/functions/{key}"), 404, "unknown-function")
    assert detail == f"There is no function '{key}'.{hint}"


def test_triggers_and_brokers_have_their_counters() -> None:
    backend = FakeBackend()
    backend.trigger_list = [
        TriggerStatus(name="tiles", namespace="default", broker="default", function="resize", dead_lettered=2)
    ]
    assert call(backend, "/api/v1/triggers").json()["items"][0]["deadLettered"] == 2
    assert call(backend, "/api/v1/brokers").json()["items"][0]["published"] == 0


def test_schedules_have_their_last_and_next_firing() -> None:
    backend = FakeBackend()
    backend.schedule_list = [
        ScheduleStatus(
            name="s",
            namespace="default",
            cron="@hourly",
            time_zone="UTC",
            broker="default",
            event_type="s.fired",
            missed_policy="skip",
            next=datetime(2026, 1, 1, 1, tzinfo=UTC),
        )
    ]
    [one] = call(backend, "/api/v1/schedules").json()["items"]
    assert (one["cron"], one["last"], one["next"]) == ("@hourly", None, "2026-01-01T01:00:00Z")


def test_the_status_has_the_faults_of_the_last_reload() -> None:
    backend = FakeBackend()
    backend.platform = backend.platform.model_copy(
        update={"faults": ("a.yaml:3: spec: wrong",), "loaded_at": datetime(2026, 1, 2, tzinfo=UTC)}
    )
    document = call(backend, "/api/v1/status").json()
    assert document["faults"] == ["a.yaml:3: spec: wrong"]
    assert document["loadedAt"] == "2026-01-02T00:00:00Z"


@pytest.mark.parametrize("healthy", [True, False])
def test_the_platform_is_healthy_when_every_part_is(healthy: bool) -> None:
    backend = FakeBackend()
    parts = (
        PartStatus(name="gateway", healthy=True),
        PartStatus(name="events", healthy=healthy, detail="no NATS"),
    )
    backend.platform = backend.platform.model_copy(update={"parts": parts})
    document = call(backend, "/api/v1/health").json()
    assert document["healthy"] is healthy
    assert document["parts"][1]["detail"] == "no NATS"


def test_the_last_lines_of_a_log_come_one_document_a_line() -> None:
    backend = FakeBackend()
    backend.add(function_status("hello"))
    for number in range(5):
        backend.write("default/hello", f"line {number}\u2028")
    response = call(backend, "/api/v1/functions/default/hello/logs", params={"tail": 2})
    assert response.headers["content-type"] == "application/x-ndjson"
    texts = [orjson.loads(line)["text"] for line in response.content.split(b"\n") if line]
    assert texts == ["line 3\u2028", "line 4\u2028"]


@pytest.mark.parametrize(
    ("query", "where", "problem"),
    [
        ("tail=-1", "query.tail", "is '-1', at least 0 was expected"),
        ("tail=10001", "query.tail", "is '10001', at most 10000 was expected"),
        ("tail=x", "query.tail", "is 'x', a whole number was expected"),
        ("follow=2", "query.follow", "is '2', true or false was expected"),
    ],
)
def test_wrong_parameters_are_named(query: str, where: str, problem: str) -> None:
    backend = FakeBackend()
    backend.add(function_status("hello"))
    response = call(backend, f"/api/v1/functions/default/hello/logs?{query}")
    assert_problem(response, 400, "malformed-request")
    assert response.json()["faults"] == [{"where": where, "problem": problem}]
    assert response.json()["detail"] == f"{where}: {problem}"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/functions/default/hello/logs?tial=5", "query.tial: is not a field here, did you mean 'tail'?"),
        (
            "/functions/default/hello/logs?follow=true&lines=5",
            "query.lines: is not a field here, one of follow, tail was expected",
        ),
        (
            "/brokers/default/default/tail?filters=a=b",
            "query.filters: is not a field here, did you mean 'fil",
        ),
        ("/functions?namespace=a&x=", "query.namespace: is not a field here, none was expected; query.x: is"),
        ("/explanation?id=1&brokr=a/b", "query.brokr: is not a field here, did you mean 'broker'?"),
        ("/calls?states=running", "query.states: is not a field here, did you mean 'state'?"),
        ("/blobs/name?download=1", "query.download: is not a field here, none was expected"),
    ],
)
def test_parameters_that_a_route_does_not_take_are_refused(path: str, says: str) -> None:
    backend = FakeBackend()
    backend.add(function_status("hello"))
    assert says in assert_problem(call(backend, f"/api/v1{path}"), 400, "malformed-request")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/explanation?id=a1&id=b", "query.id: is ['a1', 'b'], one value was expected"),
        ("/functions/default/hello/logs?tail=1&tail=1", "query.tail: is ['1', '1'], one value was expected"),
        ("/calls?limit=1&state=failed&limit=2", "query.limit: is ['1', '2'], one value was expected"),
        (
            "/dead-letters?since=2026-01-01T00:00:00Z&since=2026-01-02T00:00:00Z",
            "query.since: is ['2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'], one value was expected",
        ),
    ],
)
def test_a_parameter_that_is_taken_once_is_refused_a_second_time(path: str, says: str) -> None:
    backend = FakeBackend()
    backend.add(function_status("hello"))
    assert assert_problem(call(backend, f"/api/v1{path}"), 400, "malformed-request") == says


def test_the_broker_of_an_explanation_has_its_namespace() -> None:
    answer = call(FakeBackend(), "/api/v1/explanation?id=1&broker=work")
    says = "query.broker: is 'work', NAMESPACE/NAME was expected"
    assert assert_problem(answer, 400, "malformed-request") == says


@pytest.mark.parametrize(
    "query",
    [
        "/calls?state=failed&state=running",
        "/dead-letters?triggers=a/b&triggers=c/d",
        "/explanation?id=1&broker=calls",
    ],
)
def test_a_list_is_given_value_by_value(query: str) -> None:
    assert call(FakeBackend(), f"/api/v1{query}").status_code == 200


def test_a_tail_of_an_unknown_broker_or_with_a_wrong_filter_is_a_problem() -> None:
    backend = FakeBackend()
    detail = assert_problem(call(backend, "/api/v1/brokers/default/defualt/tail"), 404, "unknown-broker")
    assert "Did you mean 'default/default'?" in detail
    detail = assert_problem(call(backend, "/api/v1/brokers/default/nope/tail"), 404, "unknown-broker")
    assert detail == "There is no broker 'default/nope'; there are: default/default."
    response = call(backend, "/api/v1/brokers/default/default/tail", params={"filter": "Type"})
    assert "'Type' is not ATTRIBUTE=PATTERN" in assert_problem(response, 400, "malformed-request")
    response = call(backend, "/api/v1/brokers/default/default/tail", params={"filter": ["a=b"] * 17})
    assert_problem(response, 400, "malformed-request")
    assert backend.tailing() == 0


def test_a_blob_comes_back_as_it_was_put() -> None:
    backend = FakeBackend()
    content = bytes(range(256)) * 1000
    stored = call(
        backend, "/api/v1/blobs", method="PUT", content=content, headers={"content-type": "text/csv"}
    )
    assert stored.status_code == 201
    assert stored.json()["dataref"].endswith("/" + stored.json()["name"])
    response = call(backend, stored.headers["location"])
    assert response.content == content
    assert response.headers["content-type"] == "text/csv"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["0" * 64, "..%2F..%2Fetc%2Fpasswd", "%2e%2e", "a%00b", "x" * 200])
def test_a_blob_that_is_not_there_is_a_problem(name: str) -> None:
    assert_problem(call(FakeBackend(), f"/api/v1/blobs/{name}"), 404, "not-found")


@pytest.mark.parametrize("announced", [True, False])
def test_a_blob_over_the_limit_is_refused_and_not_kept(announced: bool) -> None:
    backend = FakeBackend()

    async def chunks() -> Any:
        for _ in range(11):
            yield b"x" * 10

    response = call(
        backend,
        "/api/v1/blobs",
        method="PUT",
        options=ApiOptions(max_blob_bytes=100),
        content=b"x" * 110 if announced else chunks(),
    )
    assert "100 bytes" in assert_problem(response, 413, "too-large")
    assert response.headers["connection"] == "close"
    assert backend.blobs == {}


def test_bodies_of_other_requests_are_bounded_too() -> None:
    response = call(FakeBackend(), "/api/v1/status", content=b"x" * 65_537)
    assert_problem(response, 413, "too-large")


def test_a_broker_that_does_not_answer_is_a_problem_to_try_again() -> None:
    backend = FakeBackend()
    backend.failure = EventLogError("the broker can't be reached")
    response = call(backend, "/api/v1/brokers")
    assert assert_problem(response, 503, "unavailable") == "the broker can't be reached"
    assert response.headers["retry-after"] == "1"


def test_an_error_that_nobody_expected_shows_nothing_of_itself() -> None:
    class Broken(FakeBackend):
        async def status(self) -> Any:
            raise ZeroDivisionError("secret")

    response = call(Broken(), "/api/v1/status", raise_errors=False)
    assert_problem(response, 500, "internal")
    assert "secret" not in response.text


@pytest.mark.parametrize(
    "path", ["/", "/api/v1", "/api/v1/", "/api/v1/functions/", "/api/v1/nothing", "/api/v2/status"]
)
def test_unknown_paths_are_problems(path: str) -> None:
    assert_problem(call(FakeBackend(), path), 404, "not-found")


def test_wrong_methods_are_problems_that_say_which_are_right() -> None:
    response = call(FakeBackend(), "/api/v1/blobs", method="POST", content=b"x")
    assert assert_problem(response, 405, "method-not-allowed") == "'/api/v1/blobs' takes PUT, not POST."
    assert response.headers["allow"] == "PUT"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "192.168.1.7"])
def test_a_foreign_host_name_is_refused(host: str) -> None:
    response = call(FakeBackend(), "/api/v1/status", headers={"host": host})
    assert host in assert_problem(response, 421, "misdirected")


def test_a_host_name_can_be_allowed() -> None:
    options = ApiOptions(allowed_hosts={"torpor.example"})
    assert call(
        FakeBackend(), "/api/v1/status", headers={"host": "torpor.example"}, options=options
    ).is_success


def test_a_call_is_shown_while_it_is_known() -> None:
    backend = FakeBackend()
    call_id = f"default.pay.{'0' * 32}"
    backend.known_calls[call_id] = CallStatus(
        id=call_id,
        function="default/pay",
        method="POST",
        path="/",
        state="succeeded",
        accepted_at=datetime(2026, 1, 1, tzinfo=UTC),
        attempts=2,
        result=CallResult(status=200, headers={"content-type": "text/plain"}, size_bytes=4, body="done"),
    )
    document = call(backend, f"/api/v1/calls/{call_id}").json()
    assert (document["state"], document["attempts"], document["result"]["body"]) == ("succeeded", 2, "done")
    detail = assert_problem(call(backend, "/api/v1/calls/other"), 404, "not-found")
    assert "There is no call 'other'" in detail


def test_calls_are_listed_page_by_page() -> None:
    backend = FakeBackend()
    for number in range(5):
        call_id = f"default.pay.{number:032x}"
        backend.known_calls[call_id] = CallStatus(
            id=call_id,
            function="default/pay",
            method="POST",
            path="/",
            state="accepted" if number % 2 else "running",
            accepted_at=datetime(2026, 1, 1, 0, number, tzinfo=UTC),
        )
    query, found = "limit=2", []
    while True:
        document = call(backend, f"/api/v1/calls?{query}").json()
        found.append([int(each["id"][-1]) for each in document["items"]])
        if document["next"] is None:
            break
        query = f"limit=2&after={document['next']}"
    assert found == [[4, 3], [2, 1], [0]]
    [one, other] = call(backend, "/api/v1/calls?state=accepted&state=failed&function=pay").json()["items"]
    assert (one["acceptedAt"], one["state"]) == ("2026-01-01T00:03:00Z", "accepted")
    assert (one["attempts"], one["finishedAt"], other["state"]) == (None, None, "accepted")
    assert call(backend, "/api/v1/calls?namespace=other").json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    "query", ["state=done", "limit=0", "limit=101", "after=1", "function=a.b", "namespace="]
)
def test_a_wrong_selection_of_calls_is_a_problem(query: str) -> None:
    detail = assert_problem(call(FakeBackend(), f"/api/v1/calls?{query}"), 400, "malformed-request")
    assert query.partition("=")[0] in detail


def test_a_callback_is_refused_whatever_it_asks_for() -> None:
    for method, path in (("POST", "/api/v1/dead-letters:drop"), ("GET", "/api/v1/status")):
        response = call(FakeBackend(), path, method=method, headers={"x-call-id": "1"}, content=b"{}")
        assert "A callback leads here" in assert_problem(response, 400, "malformed-request")


def test_request_ids_are_kept_when_they_are_fit_to_be_and_made_otherwise() -> None:
    kept = call(FakeBackend(), "/api/v1/status", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    for unfit in ("", "a b", "x" * 129, "é"):
        made = call(FakeBackend(), "/api/v1/status", headers={"x-request-id": unfit.encode("latin-1")})
        assert len(made.headers["x-request-id"]) == 36


def test_the_api_documents_itself() -> None:
    document = call(FakeBackend(), "/api/v1/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert sorted(operation["operationId"] for operation in operations) == [
        "dropDeadLetters",
        "explainEvent",
        "getBlob",
        "getCall",
        "getDeadLetter",
        "getFunction",
        "getFunctionLogs",
        "getHealth",
        "getStatus",
        "listBrokers",
        "listCalls",
        "listDeadLetters",
        "listFunctions",
        "listSchedules",
        "listTriggers",
        "putBlob",
        "replayDeadLetters",
        "replayEvents",
        "tailBroker",
    ]
    for operation in operations:
        problems = [answer for status, answer in operation["responses"].items() if status[0] != "2"]
        assert all(list(answer["content"]) == ["application/problem+json"] for answer in problems)


def test_the_page_for_people_has_every_operation_and_document_and_loads_nothing() -> None:
    document = call(FakeBackend(), "/api/v1/openapi.json").json()
    response = call(FakeBackend(), "/api/v1/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    for path in document["paths"]:
        assert f"<code>{path}</code>" in response.text
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in response.text
    assert not re.search(r"<script|src=|https?://", response.text)


# --- dead letters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("filters=type", "query.filters[0]: is 'type', ATTRIBUTE=PATTERN was expected, such as type=image.*"),
        (
            "filters=type%3Da&since=yesterday",
            "query.since: is 'yesterday', a time such as 2026-01-31T12:00:00Z was expected",
        ),
        ("since=2026-01-01T00:00:00", "query.since: is '2026-01-01T00:00:00', a time with a zone"),
        ("since=2026-13-01T00:00:00Z", "query.since: is '2026-13-01T00:00:00Z', a time such as"),
        ("triggers=", "query.triggers[0]: is empty, a text of one or more characters was expected"),
        (f"triggers={'t' * 513}", "query.triggers[0]: has 513 characters, at most 512 were expected"),
        ("triggers=work", "query.triggers[0]: is 'work', NAMESPACE/NAME was expected"),
        ("brokers=a/b&brokers=/b", "query.brokers[1]: is '/b', NAMESPACE/NAME was expected"),
        ("functions=a/b/c", "query.functions[0]: is 'a/b/c', NAMESPACE/NAME was expected"),
        ("trigger=default/t", "query.trigger: is not a field here, did you mean 'triggers'?"),
        (
            "xyz=1",
            "is not a field here, one of brokers, eventIds, filters, functions, since, triggers, until",
        ),
        ("&".join(["triggers=d/t"] * 101), "query.triggers: has 101 entries, at most 100 were expected"),
    ],
)
def test_a_wrong_selection_of_dead_letters_is_a_problem(query: str, says: str) -> None:
    detail = assert_problem(call(FakeBackend(), f"/api/v1/dead-letters?{query}"), 400, "malformed-request")
    assert says in detail


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "body: is missing, it has to be given"),
        (b"[1]", "body: is [1], a mapping of fields was expected"),
        (b'{"ids": [}', "body: is not JSON: Expecting value at character 9"),
        (b"{}", "body.ids: is missing, it has to be given"),
        (b'{"ids": "x"}', "body.ids: is 'x', a list was expected"),
        (b'{"ids": []}', "body.ids: has 0 entries, at least 1 was expected"),
        (b'{"ids": ["x"]}', "body.ids[0]: is 'x', 28 digits and letters a to f were expected"),
        (b'{"ids": [7]}', "body.ids[0]: is 7, a text was expected: quote it"),
        (
            orjson.dumps({"ids": ["0" * 28] * 101}),
            "body.ids: has 101 entries, at most 100 were expected",
        ),
        (
            orjson.dumps({"ids": ["0" * 28], "dryRun": "yes"}),
            "body.dryRun: is 'yes', true or false was expected",
        ),
        (
            orjson.dumps({"ids": ["0" * 28], "dryrun": True}),
            "body.dryrun: is not a field here, did you mean 'dryRun'?",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_a_wrong_action_on_dead_letters_changes_nothing(verb: str, body: bytes, says: str) -> None:
    headers = {"content-type": "application/json"}
    answer = call(FakeBackend(), f"/api/v1/dead-letters:{verb}", method="POST", content=body, headers=headers)
    assert assert_problem(answer, 400, "malformed-request") == says


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"limit": 0}, "body.limit: is 0, at least 1 was expected"),
        ({"limit": "1"}, "body.limit: is '1', a whole number was expected"),
        ({"limit": 1.5}, "body.limit: is 1.5, a whole number was expected"),
        ({"since": 7}, "body.since: is 7, a time such as 2026-01-31T12:00:00Z was expected"),
        ({"run": "x"}, "body.run: is 'x', 32 digits and letters a to f were expected"),
        ({"function": ""}, "body.function: is empty, a text of one or more characters was expected"),
        (
            {"function": "resize"},
            "body.function: is 'resize', NAMESPACE/NAME or NAMESPACE/NAME@REVISION was expected",
        ),
        ({"filters": {}}, "body.filters: is {}, a list was expected"),
    ],
)
def test_a_wrong_replay_is_a_problem_in_words(changes: dict[str, Any], says: str) -> None:
    right = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "run": "0" * 32}
    path = "/api/v1/brokers/default/default/replay"
    answer = call(FakeBackend(), path, method="POST", json={**right, **changes})
    assert assert_problem(answer, 400, "malformed-request") == says


def test_a_page_of_another_site_can_not_drop_dead_letters() -> None:
    """What a browser sends without asking first is no JSON by its type, and is not read as such."""
    body = orjson.dumps({"ids": ["0" * 28]})
    answer = call(
        FakeBackend(),
        "/api/v1/dead-letters:drop",
        method="POST",
        content=body,
        headers={"content-type": "text/plain"},
    )
    detail = assert_problem(answer, 400, "malformed-request")
    assert detail == "body: is sent with content type 'text/plain', 'application/json' was expected"
