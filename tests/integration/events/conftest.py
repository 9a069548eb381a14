"""A real NATS server for the tests of a module."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from torpor.events.nats_server import NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that lives as long as the module's tests, on a loop of its own."""
    with asyncio.Runner() as runner:
        server = NatsServer(tmp_path_factory.mktemp("nats"))
        loop = runner.get_loop()
        runner.run(server.start())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
