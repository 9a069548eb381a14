"""Ports of this machine."""

from __future__ import annotations

import os
import socket

import pytest

from torpor.errors import StartError
from torpor.local import ports


def test_port_zero_takes_a_free_one() -> None:
    with ports.listen() as listener:
        endpoint = ports.address(listener)
        assert endpoint.host == "127.0.0.1"
        socket.create_connection(endpoint).close()


def test_a_taken_port_names_its_owner() -> None:
    with ports.listen() as listener:
        port = ports.address(listener).port
        with pytest.raises(StartError, match=rf"port {port} on 127.0.0.1 is taken by .*pid {os.getpid()}"):
            ports.require_free("127.0.0.1", port)


def test_a_free_port_is_no_fault() -> None:
    with ports.listen() as listener:
        port = ports.address(listener).port
    ports.require_free("127.0.0.1", port)
