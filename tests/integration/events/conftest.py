"""A real NATS server for the tests of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import running
from torpor.events.nats_server import NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that lives as long as the module's tests, on a loop of its own."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    with running(server):
        yield server
