"""Ports that nobody else takes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from torpor import endpoint
from torpor.endpoint import free_ports

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


@pytest.mark.skipif(not _OUTGOING.exists(), reason="the range is read from /proc")
def test_no_outgoing_connection_can_take_one() -> None:
    first, last = map(int, _OUTGOING.read_text().split())
    assert not any(first <= port <= last for port in free_ports(20))


def test_a_port_that_somebody_listens_on_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_ports(2)
    monkeypatch.setattr(endpoint, "_LISTENED", (taken, free))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        assert free_ports(1) == [free]
        with pytest.raises(OSError, match="2 free ports were wanted, there are 1"):
            free_ports(2)
