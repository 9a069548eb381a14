"""A real Kafka for all tests, and what keeps a broker running beside them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

import pytest

from torpor.events.kafka_server import KafkaServer, install
from torpor.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Server(Protocol):
    async def start(self) -> None: ...

    async def close(self) -> None: ...


@contextlib.contextmanager
def running(server: _Server) -> Iterator[None]:
    """``server`` on a loop of its own."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(server.start())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker that lives as long as all tests: it takes long to start."""
    libraries = asyncio.run(install(PlatformSettings.from_environment().cache_dir))
    server = KafkaServer(tmp_path_factory.mktemp("kafka"), libraries, sync="interval")
    with running(server):
        yield server
