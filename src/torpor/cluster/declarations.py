"""What is declared in a cluster, for the events service: objects of the Kubernetes API as one declaration.

A faulty object stops no other. A trigger that became faulty stays as it was; one that was never right is not
worked on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from torpor.errors import DeclarationError
from torpor.events import names
from torpor.events.declaration import Declaration
from torpor.events.dispatcher import Stray
from torpor.spec.models import Function, Trigger
from torpor.spec.objects import function_of, trigger_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torpor.providers.kubernetes.resources import Object

_LOG = logging.getLogger("torpor.events")
_Declared = TypeVar("_Declared", Function, Trigger)


class Declarations:
    """Reads objects, each only when its spec has changed."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._functions: dict[str, tuple[Any, Function | None]] = {}
        self._triggers: dict[str, tuple[Any, Trigger | None]] = {}

    def read(self, functions: Mapping[str, Object], triggers: Mapping[str, Object]) -> Declaration:
        """The declaration that the objects, by their keys, make together."""
        self._functions = _read(functions, self._functions, function_of)
        self._triggers = _read(triggers, self._triggers, trigger_of)
        return Declaration(
            triggers=tuple(each for _, (_, each) in sorted(self._triggers.items()) if each is not None),
            brokers=(names.DEFAULT_BROKER,),
            timeouts_seconds={
                key: each.spec.timeout_seconds
                for key, (_, each) in self._functions.items()
                if each is not None
            },
            gateway=self._gateway,
        )


def _read(
    items: Mapping[str, Object],
    before: Mapping[str, tuple[Any, _Declared | None]],
    read: Callable[[Mapping[str, Any]], _Declared],
) -> dict[str, tuple[Any, _Declared | None]]:
    found: dict[str, tuple[Any, _Declared | None]] = {}
    for key, item in items.items():
        spec, known = before.get(key, (None, None))
        if key in before and spec == item.get("spec"):
            found[key] = before[key]
            continue
        try:
            found[key] = (item.get("spec"), read(item))
        except DeclarationError as error:
            _LOG.warning("%s %s is faulty: %s", item.get("kind"), key, "; ".join(error.faults))
            found[key] = (item.get("spec"), known)
    return found


def broker_of(trigger: Object) -> str:
    """The key of the broker that a Trigger reads, faulty or not, by what it says itself."""
    broker = (trigger.get("spec") or {}).get("broker") or "default"
    return f"{trigger['metadata']['namespace']}/{broker}"


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
