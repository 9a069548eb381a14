"""What the platform tells the events process, and what that says of itself: the control API's documents.

Source of the shapes for both ends: :mod:`torpor.events.control_app` answers, :mod:`torpor.events.control`
asks.
"""

from __future__ import annotations

from pydantic import Field

from torpor.endpoint import Endpoint
from torpor.events.callback_urls import REFUSED_ON_A_LAPTOP
from torpor.events.claims import DEFAULT_TTL_SECONDS, MAX_INLINE_BYTES
from torpor.events.declared import Callee, Declared, Document
from torpor.spec.models import Schedule, Trigger
from torpor.spec.status import EventCounts, ScheduleCounts


class ServiceConfig(Document):
    """What the process is started with: one line of JSON on its standard input."""

    broker_url: str
    """See :mod:`torpor.events.brokers`."""
    nats_token: str = ""
    kafka_options: dict[str, str] = Field(default_factory=dict)
    blobs_url: str = ""
    callbacks_refused: str = REFUSED_ON_A_LAPTOP
    """Networks that callbacks may not reach: CIDR blocks with commas between."""
    blobs_ttl_seconds: float = DEFAULT_TTL_SECONDS
    claim_check_bytes: int = MAX_INLINE_BYTES
    stats_path: str = ""
    """File in which the counters outlast the process; none by default."""
    log_level: str = "INFO"


class Declaration(Document):
    """Everything that is declared, whole, each time it changes."""

    triggers: tuple[Trigger, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    brokers: tuple[str, ...] = ()
    """Keys of the brokers beside those that triggers read and schedules fill."""
    functions: dict[str, Callee] = Field(default_factory=dict)
    """The functions that there are, by key."""
    gateway: str = ""
    """The gateway's internal listener, ``host:port``."""

    def declared(self) -> Declared:
        """What the dispatcher takes."""
        brokers = dict.fromkeys((*self.brokers, *(one.broker_key for one in self.schedules)))
        return Declared(self.triggers, tuple(brokers), self.functions)

    def endpoint(self) -> Endpoint | None:
        """The gateway, if it is known."""
        if not self.gateway:
            return None
        host, _, port = self.gateway.rpartition(":")
        return Endpoint(host, int(port))


class TriggerReport(EventCounts):
    """A trigger at work."""

    problem: str = ""
    """What is wrong, if anything is."""


class ScheduleReport(ScheduleCounts):
    """A schedule as a process has it."""

    problem: str = ""
    """What keeps it from firing, if anything does."""


class EventsState(Document):
    """The counters of all brokers, triggers and schedules, by their keys."""

    published_by_broker: dict[str, int] = Field(default_factory=dict)
    """Events taken in durably."""
    triggers: dict[str, TriggerReport] = Field(default_factory=dict)
    """The triggers that are at work."""
    schedules: dict[str, ScheduleReport] = Field(default_factory=dict)
    """The schedules that are at work; of suspended ones, what they did before."""
    refused: dict[str, int] = Field(default_factory=dict)
    """Requests that the ingress refused, by kind of problem."""

    def counts(self, trigger_key: str) -> EventCounts | None:
        """The counters of a trigger; ``None`` when it is not at work."""
        return self.triggers.get(trigger_key)

    def problem(self, trigger_key: str) -> str:
        """What is wrong with a trigger."""
        report = self.triggers.get(trigger_key)
        return report.problem if report is not None else ""

    def published(self, broker_key: str) -> int:
        """How many events a broker has taken in."""
        return self.published_by_broker.get(broker_key, 0)


class EventsHealth(Document):
    """How the process is."""

    connected: bool
    """Whether it has a connection to the event log."""
    declared: bool
    """Whether it knows what it has to do."""
    busy: int
    """Deliveries under way."""
