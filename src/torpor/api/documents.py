"""The documents that are of the API alone; what it says of resources is in :mod:`torpor.spec.status`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from torpor.spec.letters import LetterOutcome
from torpor.spec.status import BrokerStatus, FunctionStatus, PartStatus, ScheduleStatus, TriggerStatus


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class FunctionList(_Document):
    """Functions, in the order of their namespaces and names."""

    items: list[FunctionStatus]


class TriggerList(_Document):
    """Triggers, in the order of their namespaces and names."""

    items: list[TriggerStatus]


class ScheduleList(_Document):
    """Schedules, in the order of their namespaces and names."""

    items: list[ScheduleStatus]


class BrokerList(_Document):
    """Brokers, in the order of their namespaces and names."""

    items: list[BrokerStatus]


class LetterOutcomes(_Document):
    """What became of dead letters, in the order in which they were named."""

    items: list[LetterOutcome]


class StoredBlob(_Document):
    """A blob that is stored."""

    name: str = Field(description="Its name under /api/v1/blobs/.")
    dataref: str = Field(description="What an event carries as `dataref` to hand it to a function.")


class Health(_Document):
    """Whether the platform does its work."""

    healthy: bool = Field(description="Whether every part is well.")
    parts: list[PartStatus]


class ProblemDocument(_Document):
    """What is wrong, after RFC 9457; the type is stable, the rest is for people."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable URI of the kind of problem.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong with this request.")
    request_id: str = Field(description="Leads to the platform's log; also in x-request-id.")
