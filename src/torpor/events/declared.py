"""What is declared, as who delivers and who takes in calls work from it: triggers, brokers and functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torpor.spec.models import Function, Trigger


class Document(BaseModel):
    """A part of what travels by the control API."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )


class Callee(Document):
    """What is to be known of a function in order to call it, or to take in calls for it."""

    timeout_seconds: float = 300.0
    """The longest call."""
    methods: tuple[str, ...] = ()
    """Methods that it takes; all by default."""
    max_body_bytes: int = 16 * 1024 * 1024
    """The largest body."""
    concurrency: int = 0
    """How many calls all its instances serve at once, when there are as many as may be; 0: no limit."""
    revision: str = ""
    """The one that serves, if it is known."""

    @classmethod
    def of(cls, function: Function, revision: str = "") -> Callee:
        """Of a declared function, of which ``revision`` serves."""
        spec = function.spec
        return cls(
            timeout_seconds=spec.timeout_seconds,
            methods=spec.http.methods,
            max_body_bytes=spec.http.max_body_bytes,
            concurrency=spec.container_concurrency * spec.scaling.max_scale,
            revision=revision,
        )

    def at_once(self, most: int) -> int:
        """How many calls to have under way, where ``most`` are allowed.

        More than it can serve would only wait for an instance, while their time runs out.
        """
        return min(most, self.concurrency or most)


UNKNOWN = Callee()
"""A function that is not declared."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the dispatcher works from: whole, each time it changes.

    ``functions`` are those that there are, by key. Brokers are those named here, those that triggers read,
    and those that their dead letters are put into.
    """

    triggers: Sequence[Trigger] = ()
    brokers: Sequence[str] = ()
    functions: Mapping[str, Callee] = field(default_factory=dict)

    def all_brokers(self) -> set[str]:
        """The keys of all brokers."""
        sinks = (trigger.sink_broker_key for trigger in self.triggers)
        return {*self.brokers, *(each.broker_key for each in self.triggers), *filter(None, sinks)}

    def callee(self, function_key: str) -> Callee:
        """What is known of a function."""
        return self.functions.get(function_key, UNKNOWN)
