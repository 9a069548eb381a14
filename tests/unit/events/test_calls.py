"""What a request for a call means, how calls are kept, and which callbacks are allowed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.errors import StartError
from torpor.events import calls
from torpor.events.callback_urls import REFUSED, REFUSED_ON_A_LAPTOP, Networks, problem_of, shown
from torpor.events.calls import Call, Outcome, Target
from torpor.events.control_app import ControlApp
from torpor.settings import EventsSettings
from torpor.testing.clock import MovableClock

CALL = Call("shop.pay.0" + "a" * 31, "PUT", "/a%20b?c", [(b"x-a", b"\xff\x80 1")], 1.5, "https://a/b?c")


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        (b"/async-function/pay", b"", Target("default/pay", "pay", "/")),
        (b"/async-function/pay/", b"", Target("default/pay", "pay", "/")),
        (b"/async-function/pay.shop", b"a=b", Target("shop/pay", "pay.shop", "/?a=b")),
        (b"/async-function/pay.shop/x%2Fy//z", b"", Target("shop/pay", "pay.shop", "/x%2Fy//z")),
        (b"/async-function/", b"", None),
        (b"/async-function//pay", b"", None),
        (b"/async-function/a.b.c", b"", None),
        (b"/async-function/a.", b"", None),
        (b"/async-function/pay%2e", b"", None),
        (b"/async-function/Pay", b"", None),
    ],
)
def test_a_path_names_a_function_and_what_is_below_it(
    path: bytes, query: bytes, expected: Target | None
) -> None:
    assert calls.target_of(path, query) == expected


def test_headers_of_one_connection_and_of_the_platform_are_not_passed_on() -> None:
    kept = [(b"host", b"a"), (b"content-type", b"b"), (b"authorization", b"c"), (b"x-request-id", b"d")]
    dropped = [
        (b"connection", b"close, X-Mine"),
        (b"x-mine", b"1"),
        (b"content-length", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
        (b"upgrade", b"websocket"),
        (b"torpor-function", b"other/one"),
        (b"torpor-attempt", b"7"),
        (b"x-callback-url", b"http://a"),
        (b"x-call-id", b"mine"),
        (b"x-forwarded-prefix", b"/mine"),
        (b"x-envoy-internal", b"true"),
    ]
    found = calls.passed_on([*dropped, *kept], "pay.shop")
    assert found == [*kept, (b"x-forwarded-prefix", b"/function/pay.shop")]


def test_what_is_kept_of_an_answers_headers_is_little() -> None:
    given_headers = [
        (b"content-type", b"a"),
        (b"set-cookie", b"b"),
        (b"etag", b"c" * 1025),
        (b"location", b"d"),
        (b"location", b"e"),
    ]
    assert calls.kept_headers(given_headers) == [(b"content-type", b"a"), (b"location", b"d")]


_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
_headers = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4)
_calls = st.builds(
    Call,
    id=st.sampled_from([CALL.id, "default.a-b." + "f" * 32]),
    method=st.sampled_from(calls.METHODS),
    target=_texts,
    headers=_headers,
    accepted_at=st.floats(0, 1e10),
    callback=_texts,
)


@given(_calls, st.binary(max_size=10))
def test_a_call_is_read_as_it_was_written(call: Call, body: bytes) -> None:
    event = call.event(body)
    assert (calls.call_of(event), event.data) == (call, body)
    assert all(value.isascii() and value.isprintable() for value in event.attributes.values())


@given(
    st.builds(
        Outcome,
        call=_calls,
        succeeded=st.booleans(),
        attempts=st.integers(1, 100),
        finished_at=st.floats(0, 1e10),
        duration_seconds=st.floats(0, 1e4),
        status=st.none() | st.integers(100, 599),
        headers=_headers,
        reason=_texts,
        size_bytes=st.integers(0, 10**9),
        truncated=st.booleans(),
    )
)
def test_an_outcome_is_read_as_it_was_written(outcome: Outcome) -> None:
    found = calls.outcome_of(outcome.event(b""))
    call = outcome.call
    without_headers = Call(call.id, call.method, call.target, [], call.accepted_at, call.callback)
    assert found.call == without_headers
    assert [getattr(found, name) for name in Outcome.__slots__ if name != "call"] == [
        getattr(outcome, name) for name in Outcome.__slots__ if name != "call"
    ]


def test_ids_tell_the_function_and_a_key_of_the_callers_own_is_the_same_call() -> None:
    found = calls.call_id("shop/pay", calls.mark_of(b"mine"))
    assert calls.is_call_id(found)
    assert calls.function_of(found) == "shop/pay"
    assert calls.mark_of(b"mine") == calls.mark_of(b"mine") != calls.mark_of(b"other")
    for wrong in ("", "a.b", f"a.b.{'g' * 32}", f"a/b.c.{'0' * 32}", f"a.b.{'0' * 33}", f"a.b.c.{'0' * 32}"):
        assert not calls.is_call_id(wrong)


def test_a_callback_says_what_openfaas_says() -> None:
    kept = [(b"content-type", b"text/plain"), (b"location", b"/x")]
    outcome = Outcome(CALL, True, 2, 3.0, 0.25, 201, kept)
    assert calls.callback_headers(outcome) == [
        (b"content-type", b"text/plain"),
        (b"x-call-id", CALL.id.encode()),
        (b"x-function-name", b"pay.shop"),
        (b"x-function-status", b"201"),
        (b"x-duration-seconds", b"0.250000"),
    ]
    nothing_came = Outcome(CALL, False, 2, 3.0, 0.25)
    assert (b"x-function-status", b"504") in calls.callback_headers(nothing_came)


# --- callbacks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://a.example/b?c=d", None),
        ("http://10.1.2.3:8080/", None),
        ("http://[2001:db8::1]/", None),
        ("ftp://a/", "an absolute http or https URL"),
        ("/a", "an absolute http or https URL"),
        ("//a/b", "an absolute http or https URL"),
        ("http://", "an absolute http or https URL"),
        ("http://a:b/", "is no URL"),
        ("http://[::1/", "is no URL"),
        ("http://a b/", "percent-encoded"),
        ("http://a\\b/", "percent-encoded"),
        ("http://ä/", "percent-encoded"),
        ("http://user:pass@a/", "a user or a password"),
        ("http://a/#b", "a fragment"),
        ("http://a..example/", "can be no name"),
        ("http://.a/", "can be no name"),
        ("http://" + "a" * 64 + ".example/", "can be no name"),
        ("http://a/" + "b" * 2048, "at most 2048"),
        ("http://127.0.0.1/", "leads to 127.0.0.1"),
        ("http://[::1]/", "leads to ::1"),
        ("http://[::ffff:127.0.0.1]/", "leads to"),
        ("http://[64:ff9b::7f00:1]/", "leads to"),
        ("http://[2002:7f00:1::]/", "leads to"),
        ("http://169.254.169.254/latest", "leads to 169.254.169.254"),
        ("http://[fe80::1]/", "leads to fe80::1"),
        ("http://0.0.0.0/", "leads to 0.0.0.0"),
        ("http://255.255.255.255/", "leads to"),
    ],
)
def test_a_callback_is_an_absolute_url_that_leads_where_it_may(url: str, problem: str | None) -> None:
    found = problem_of(url, Networks(REFUSED))
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert problem in found
        assert "pass" not in found.replace("password", "")


def test_the_control_api_takes_no_callbacks() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise NotImplementedError

    unused: Any = None
    scope = {"method": "POST", "path": "/dead-letters/drop", "headers": [(b"x-call-id", b"1")]}
    asyncio.run(ControlApp(unused, MovableClock(), declares=False)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert b"A callback leads here" in sent[1]["body"]


def test_on_a_laptop_callbacks_may_go_to_the_laptop() -> None:
    refused = Networks(REFUSED_ON_A_LAPTOP)
    assert problem_of("http://127.0.0.1:8080/function/a", refused) is None
    assert problem_of("http://[::1]/", refused) is None
    assert problem_of("http://169.254.169.254/", refused) is not None


def test_networks_are_blocks_with_commas_between() -> None:
    found = Networks(" 10.0.0.0/8 , fd00::/8,")
    assert "10.9.9.9" in found
    assert "fd00::1" in found
    assert "11.0.0.0" not in found
    for wrong in ("10.0.0.1/8", "a", "10.0.0.0/33"):
        with pytest.raises(ValueError, match=wrong.partition("/")[0]):
            Networks(wrong)


def test_a_setting_that_is_no_network_is_named() -> None:
    name = "TORPOR_CALLBACKS_REFUSED"
    assert EventsSettings.from_environment({name: "10.0.0.0/8, ::1/128"}).callbacks_refused
    with pytest.raises(StartError, match=f"{name}.*10.0.0.1/8"):
        EventsSettings.from_environment({name: "10.0.0.1/8"})


def test_a_callbacks_query_is_not_shown() -> None:
    assert shown("https://a/b?token=secret") == "https://a/b"
