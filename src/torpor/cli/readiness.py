"""Whether what was deployed has become ready, from its conditions as they come. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torpor.controller.status import READY, condition
from torpor.providers.kubernetes.resources import key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.providers.kubernetes.resources import Object

SETTLED_SECONDS = 15.0
"""How long a problem must have held to be one: an image may be pulled the second time."""
# Nothing but another declaration helps.
_AT_ONCE = frozenset(("Invalid", "Refused"))
# A cluster that grows, or that something else leaves, helps by itself.
_PATIENT = frozenset(("Unschedulable", "QuotaExceeded", "PodsRefused"))
_UNSEEN = "the controller has not looked at it yet"


class Name(NamedTuple):
    """An object: its kind, and ``namespace/name``."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


def name_of(item: Object) -> Name:
    """How ``item`` is called."""
    return Name(item["kind"], key(item))


@dataclass(slots=True)
class _Seen:
    generation: int
    ready: bool = False
    failed: bool = False
    reason: str = ""
    message: str = _UNSEEN
    since: float | None = None
    """When its problem was first seen."""
    url: str = ""


@dataclass(slots=True)
class Readiness:
    """What of the objects that were deployed is ready, by what they are told to be in :meth:`see`."""

    _seen: dict[Name, _Seen] = field(default_factory=dict)

    def expect(self, item: Object) -> None:
        """Wait for ``item``, as the API server took it in."""
        self._seen[name_of(item)] = _Seen(item["metadata"].get("generation", 0))

    def see(self, item: Object, now: float) -> None:
        """``item`` is this at ``now``, a time in seconds."""
        seen = self._seen.get(name_of(item))
        if seen is None:
            return
        status = item.get("status", {})
        told = condition(status, READY)
        if told is None or told.get("observedGeneration", 0) < seen.generation:
            return
        seen.ready = told["status"] == "True"
        seen.reason, seen.message = told["reason"], told["message"]
        seen.url = str(status.get("url", ""))
        if told["status"] != "False":
            seen.since, seen.failed = None, False
        elif seen.since is None:
            seen.since = now

    def gone(self, item: Object) -> None:
        """``item`` is there no more."""
        seen = self._seen.get(name_of(item))
        if seen is not None:
            seen.ready, seen.failed, seen.reason, seen.message = False, True, "Deleted", "it was deleted"

    def judge(self, now: float) -> bool:
        """Whether there is nothing left to wait for at ``now``: all are ready, or have failed."""
        for seen in self._seen.values():
            if seen.since is not None and seen.reason not in _PATIENT:
                patience_seconds = 0.0 if seen.reason in _AT_ONCE else SETTLED_SECONDS
                seen.failed = seen.failed or now - seen.since >= patience_seconds
        return all(seen.ready or seen.failed for seen in self._seen.values())

    def progress(self) -> str:
        """How far it is, in a line."""
        waiting = [(name, seen) for name, seen in self._seen.items() if not seen.ready]
        done = f"{len(self._seen) - len(waiting)} of {len(self._seen)} ready"
        if not waiting:
            return done
        name, seen = waiting[0]
        return f"{done}; {name}: {seen.message}"

    def problems(self) -> Mapping[Name, str]:
        """What is not ready, and why."""
        return {name: seen.message for name, seen in self._seen.items() if not seen.ready}

    def ready(self) -> list[tuple[Name, str]]:
        """What is ready, and where it is called, if it is."""
        return [(name, seen.url) for name, seen in self._seen.items() if seen.ready]

    def shown(self, name: Name) -> dict[str, object]:
        """What is known of one object, for programs."""
        seen = self._seen[name]
        return {"ready": seen.ready, "reason": seen.reason, "message": seen.message, "url": seen.url or None}
