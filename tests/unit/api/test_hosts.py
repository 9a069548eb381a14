from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.api.hosts import host_name, is_allowed


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "api.localhost",
        "localhost.",
        "127.0.0.1:8080",
        "127.8.8.8",
        "[::1]",
        "[::1]:8080",
    ],
)
def test_names_of_the_loopback_interface_are_allowed(host: str) -> None:
    assert is_allowed(host, ())


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "192.168.1.7:8080",
        "0.0.0.0",
        "[::]",
        "[::1",
        "[::1]8080",
        "localhost:http",
        "localhost:",
        "user@localhost",
        ":8080",
    ],
)
def test_everything_else_is_not(host: str) -> None:
    assert not is_allowed(host, ())


def test_further_names_can_be_allowed() -> None:
    allowed = {"torpor.example", "*.apps.example", "192.168.1.7"}
    assert is_allowed("torpor.example:80", allowed)
    assert is_allowed("Torpor.Example.", allowed)
    assert is_allowed("a.b.apps.example", allowed)
    assert is_allowed("192.168.1.7", allowed)
    assert not is_allowed("apps.example", allowed)
    assert not is_allowed("xtorpor.example", allowed)
    assert is_allowed("anything at all", {"*"})


@given(st.text())
def test_no_header_is_too_strange_to_be_read(host: str) -> None:
    name = host_name(host)
    assert name is None or name == name.lower()
