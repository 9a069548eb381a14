"""What tests of events on the cluster do to a broker, and see in it."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

from tests.cluster.platform import until
from torpor.binding import WireEvent
from torpor.clock import SystemClock
from torpor.events.brokers import connect
from torpor.events.names import broker_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.commands import Commands
    from tests.cluster.platform import Platform
    from torpor.api.client import Client
    from torpor.events.brokers import Broker
    from torpor.events.log import EventLog
    from torpor.spec.history import Explanation
    from torpor.spec.letters import DeadLetter

SOURCE = "/test"
_READ_SECONDS = 60.0
_numbers = itertools.count()


class Reader:
    """Reads what a broker has, on the loop that started it: see ``tests.integration.conftest.running``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._log: EventLog
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Connect."""
        self._loop = asyncio.get_running_loop()
        self._log = await connect(self._broker, SystemClock())

    async def close(self) -> None:
        """Let go of it."""
        await self._log.close()

    def events(self, broker: str) -> list[WireEvent]:
        """All events of ``namespace/name``, the oldest first."""

        async def read() -> list[WireEvent]:
            return [stored.event async for stored in self._log.read(broker_stream(broker), ">")]

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(_READ_SECONDS)


class Events:
    """The broker ``default`` of a namespace whose triggers are all at work."""

    def __init__(
        self, platform: Platform, namespace: str, torpor: Commands, client: Client, reader: Reader
    ) -> None:
        self.platform = platform
        self.namespace = namespace
        self.torpor = torpor
        self.client = client
        self._reader = reader

    # --- doing --------------------------------------------------------------------------------------------

    def declare(self, documents: Sequence[dict[str, Any]]) -> None:
        """Apply resources, and wait until the triggers among them are at work in every events pod."""
        items = [{"apiVersion": "torpor.dev/v1alpha1", **document} for document in documents]
        self.platform.cluster.apply(items, self.namespace)
        wanted = {item["metadata"]["name"] for item in items if item["kind"] == "Trigger"}
        until(lambda: wanted <= self._at_work(), "triggers at work")
        keys = [f"{self.namespace}/{name}" for name in wanted]
        until(lambda: all(map(self.platform.states, keys)), "triggers at work in every events pod")

    def _at_work(self) -> set[str]:
        triggers = self.client.triggers()
        return {one.name for one in triggers if one.namespace == self.namespace and one.ready}

    def send(self, kind: str, *data: dict[str, Any], **attributes: str) -> list[str]:
        """Send an event of a new id for each of ``data``, as one batch; returns the ids."""
        ids = [f"{kind}-{next(_numbers)}" for _ in data]
        self.client.send(
            [event(kind, name, each, **attributes) for name, each in zip(ids, data, strict=True)],
            namespace=self.namespace,
        )
        return ids

    # --- looking ------------------------------------------------------------------------------------------

    def kept(self, kind: str, broker: str = "default") -> list[WireEvent]:
        """The events of this type that a broker has, the oldest first."""
        return [each for each in self._reader.events(f"{self.namespace}/{broker}") if each.type == kind]

    def replies(self, kind: str, count: int) -> list[dict[str, Any]]:
        """The data of the events of this type, once there are so many."""
        until(lambda: len(self.kept(kind)) >= count, f"{count} events of type {kind}")
        return [json.loads(each.data or b"null") for each in self.kept(kind)]

    def explained(self, name: str) -> Explanation:
        """What happened to an event."""
        [found] = self.client.explain(name, SOURCE, f"{self.namespace}/default").items
        return found

    def statuses(self, name: str) -> list[int | None]:
        """How each delivery of an event was answered, but for those to sinks."""
        steps = self.explained(name).steps
        return [one.status for one in steps if one.what == "delivery" and not one.trigger.endswith(" sink")]

    def letters(self, trigger: str) -> list[DeadLetter]:
        """The dead letters of a trigger."""
        key = f"{self.namespace}/{trigger}"
        return [letter for letter in self.client.dead_letters() if letter.trigger == key]


def event(kind: str, name: str, data: dict[str, Any], **attributes: str) -> WireEvent:
    """An event with JSON data."""
    head = {"specversion": "1.0", "id": name, "source": SOURCE, "type": kind}
    return WireEvent({**head, "datacontenttype": "application/json", **attributes}, json.dumps(data).encode())
