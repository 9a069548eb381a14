"""From objects of the Kubernetes API to declarations, each read only when its spec has changed.

A faulty object stops no other. One that became faulty stays as it was; one that was never right is left out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torpor.errors import DeclarationError
from torpor.spec.models import Function, Schedule, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torpor.providers.kubernetes.resources import Object

_LOG = logging.getLogger("torpor.kubernetes")
_Declared = TypeVar("_Declared", Function, Trigger, Schedule)


class Reader(Generic[_Declared]):
    """Reads all objects of one kind, again and again; ``read`` makes a declaration of one."""

    def __init__(self, read: Callable[[Mapping[str, Any]], _Declared]) -> None:
        self._read_one: Callable[[Mapping[str, Any]], _Declared] = read
        self._known: dict[str, tuple[Any, _Declared | None]] = {}

    def read(self, items: Mapping[str, Object]) -> dict[str, _Declared]:
        """What ``items`` declare, by the same keys."""
        known, self._known = self._known, {}
        for key, item in items.items():
            spec, before = item.get("spec"), known.get(key)
            if before is not None and (before[0] is spec or before[0] == spec):
                self._known[key] = before
                continue
            try:
                self._known[key] = (spec, self._read_one(item))
            except DeclarationError as error:
                _LOG.warning("%s %s is faulty: %s", item.get("kind"), key, "; ".join(error.faults))
                self._known[key] = (spec, None if before is None else before[1])
        return {key: declared for key, (_, declared) in self._known.items() if declared is not None}
