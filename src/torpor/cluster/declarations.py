"""What is declared in a cluster, for the events service: objects of the Kubernetes API as one declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.cluster.reader import Reader
from torpor.events import names
from torpor.events.declaration import Declaration
from torpor.events.declared import Callee
from torpor.events.strays import Stray
from torpor.spec.objects import function_of, schedule_of, trigger_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torpor.providers.kubernetes.resources import Object


class Declarations:
    """Reads objects, each only when its spec has changed."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._functions = Reader(function_of)
        self._triggers = Reader(trigger_of)
        self._schedules = Reader(schedule_of)

    def read(
        self,
        functions: Mapping[str, Object],
        triggers: Mapping[str, Object],
        schedules: Mapping[str, Object],
    ) -> Declaration:
        """The declaration that the objects, by their keys, make together."""
        declared = self._functions.read(functions)
        return Declaration(
            triggers=tuple(trigger for _, trigger in sorted(self._triggers.read(triggers).items())),
            schedules=tuple(one for _, one in sorted(self._schedules.read(schedules).items())),
            brokers=(names.DEFAULT_BROKER,),
            functions={
                key: Callee.of(function, functions[key].get("status", {}).get("revision", ""))
                for key, function in declared.items()
            },
            gateway=self._gateway,
        )


def broker_of(item: Object) -> str:
    """The key of the broker that a Trigger reads or a Schedule fills, faulty or not: what it says itself."""
    broker = (item.get("spec") or {}).get("broker") or "default"
    return f"{item['metadata']['namespace']}/{broker}"


def kept(triggers: Iterable[Object]) -> set[Stray]:
    """What an event log must keep for these objects, faulty or not, by what they say themselves."""
    found: set[Stray] = set()
    for item in triggers:
        metadata, spec = item["metadata"], item.get("spec") or {}
        key = f"{metadata['namespace']}/{metadata['name']}"
        found.add(Stray(names.broker_stream(broker_of(item)), names.trigger_consumer(key)))
        if spec.get("join") is not None:
            found.add(Stray(names.groups_stream(key)))
    return found
