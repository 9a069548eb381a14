"""The broker of a platform on this machine: one that it runs itself, or one that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torpor.events import kafka_server, nats_server
from torpor.events.brokers import Broker, read_options
from torpor.memory import private_bytes
from torpor.spec.status import PartStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torpor.children import Health
    from torpor.clock import Clock
    from torpor.settings import PlatformSettings

    Changed = Callable[[str | None], None]


class LocalBroker(Protocol):
    """A broker as a part of the platform."""

    @property
    def broker(self) -> Broker:
        """How it is reached; known once it was started."""
        ...

    async def start(self) -> None:
        """Have it. Raises :class:`~torpor.errors.StartError`."""
        ...

    async def close(self) -> None:
        """Let go of it; what waits stays."""
        ...

    def parts(self) -> list[PartStatus]:
        """How it is, if it is run here."""
        ...


def _part(name: str, address: str, version: str, health: Health) -> PartStatus:
    """How a broker is that is run here."""
    return PartStatus(
        name=name,
        healthy=health.running and not health.problem,
        detail=health.problem,
        address=address,
        pid=health.pid,
        version=version,
        restarts=health.restarts,
        memory_bytes=private_bytes(health.pid),
    )


class LocalNats:
    """NATS, run here."""

    name = "nats"

    def __init__(self, folder: Path, clock: Clock, changed: Changed) -> None:
        self._server = nats_server.NatsServer(folder / "nats", clock=clock, on_change=changed)

    @property
    def broker(self) -> Broker:
        """How it is reached."""
        return Broker(self._server.url, self._server.token)

    async def start(self) -> None:
        """Start it."""
        await self._server.start()

    async def close(self) -> None:
        """End it."""
        await self._server.close()

    def parts(self) -> list[PartStatus]:
        """How it is."""
        address = self._server.url.removeprefix("nats://")
        return [_part(self.name, address, f"nats-server {nats_server.version()}", self._server.health())]


class LocalKafka:
    """Kafka, run here."""

    name = "kafka"

    def __init__(self, folder: Path, settings: PlatformSettings, clock: Clock, changed: Changed) -> None:
        self._folder = folder / "kafka"
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._server: kafka_server.KafkaServer | None = None

    @property
    def broker(self) -> Broker:
        """How it is reached."""
        if self._server is None:
            raise RuntimeError("the broker was not started")
        return Broker(f"kafka://{self._server.servers}", options=self._server.options)

    async def start(self) -> None:
        """Fetch it, if need be, and start it."""
        cache = self._settings.cache_dir.expanduser()
        libraries = await kafka_server.install(cache, self._settings.kafka_home)
        self._server = kafka_server.KafkaServer(
            self._folder, libraries, clock=self._clock, on_change=self._changed
        )
        await self._server.start()

    async def close(self) -> None:
        """End it."""
        if self._server is not None:
            await self._server.close()

    def parts(self) -> list[PartStatus]:
        """How it is."""
        if self._server is None:
            return []
        version = f"kafka {kafka_server.VERSION}"
        return [_part(self.name, self._server.servers, version, self._server.health())]


class ThereBroker:
    """A broker that somebody else runs."""

    def __init__(self, url: str, settings: PlatformSettings) -> None:
        self._settings = settings
        self._broker = Broker(url, settings.nats_token)

    @property
    def broker(self) -> Broker:
        """How it is reached."""
        return self._broker

    async def start(self) -> None:
        """Learn how it is reached."""
        options = await read_options(self._settings.kafka_options)
        self._broker = Broker(self._broker.url, self._settings.nats_token, options)

    async def close(self) -> None:
        """It goes on."""

    def parts(self) -> list[PartStatus]:
        """It is no part of the platform."""
        return []


def choose(
    broker: str,
    folder: Path,
    settings: PlatformSettings,
    clock: Clock,
    changed: Callable[[str, str | None], None],
) -> LocalBroker:
    """The broker that a person chose: ``nats``, ``kafka``, or the URL of one that is there.

    ``changed`` is told its name and what is wrong with it, or ``None``. Raises
    :class:`~torpor.errors.StartError` when it is none of these.
    """
    if broker == LocalNats.name:
        return LocalNats(folder, clock, lambda problem: changed(LocalNats.name, problem))
    if broker == LocalKafka.name:
        return LocalKafka(folder, settings, clock, lambda problem: changed(LocalKafka.name, problem))
    return ThereBroker(broker, settings)
