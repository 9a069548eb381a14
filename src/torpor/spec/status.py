"""What ``/api/v1`` and the command line show of a running platform.

Written by the platform, read by people and tools: so a reader ignores fields that it does not know. Times are
in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from torpor.spec.models import Filter
from torpor.spec.view import View


class InstanceStatus(View):
    """One instance of a function."""

    id: str
    """Its id, unique on the platform."""
    revision: str
    """The revision that it runs."""
    state: Literal["starting", "ready", "draining"]
    """Where it is in its life; it never goes back."""
    endpoint: str
    """Where it listens, `host:port`."""
    pid: int | None = None
    """Its process, where it is one."""
    started_at: datetime
    """When its start began."""
    ready_at: datetime | None = None
    """When it became ready."""
    memory_bytes: int | None = None
    """What it has of memory to itself."""


class ScalingStatus(View):
    """How a function is scaled at the moment."""

    min_scale: int
    """Fewest instances."""
    max_scale: int
    """Most instances."""
    metric: str
    """What is measured."""
    target: float
    """What one instance should bear of it."""
    observed: float | None = None
    """What was measured last over the stable window, for all instances together."""
    panicking: bool = False
    """Whether a burst keeps it from scaling down."""
    reason: str = ""
    """Why so many instances are desired, in words."""


class FunctionStatus(View):
    """One function."""

    name: str
    """Its name."""
    namespace: str
    """Its namespace."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Its labels."""
    url: str
    """Where it is called."""
    ready: bool
    """Whether a call to it would be served, by an instance or by waking one."""
    reason: str
    """Its state in a few words; what is wrong when it is not ready."""
    revision: str | None
    """The revision that runs; none when it was never started."""
    desired: int
    """How many instances there should be."""
    instances: tuple[InstanceStatus, ...] = ()
    """The instances that there are."""
    start_method: str | None = None
    """How instances are started, and why if it is not the fast way."""
    restarts: int = 0
    """How often an instance was replaced because it had died."""
    requests: int = 0
    """Requests since the platform started."""
    image: str | None = None
    """The image that a cluster runs."""
    source: str
    """Folder of its code; empty where it runs from an image."""
    handler: str
    """Its module or handler; empty where it runs from an image."""
    declared_in: str
    """The file, and line, that declares it; empty where an object of a cluster does."""
    container_concurrency: int
    """Calls that one instance serves at once; 0 is no limit."""
    timeout_seconds: float
    """Seconds that a call may take."""
    scaling: ScalingStatus
    """How it is scaled."""


class EventCounts(View):
    """Events since the platform's event log was made, as far as its counters reach back."""

    delivered: int = 0
    """Deliveries that succeeded."""
    redelivered: int = 0
    """Deliveries that were not the first of their event."""
    failed: int = 0
    """Deliveries that did not succeed."""
    dead_lettered: int = 0
    """Events that became dead letters."""
    pending: int = 0
    """Events that wait to be delivered, or are under way."""


class TriggerStatus(EventCounts):
    """One trigger."""

    name: str
    """Its name."""
    namespace: str
    """Its namespace."""
    broker: str
    """Name of the broker that it reads."""
    function: str
    """Name of the function that it delivers to."""
    filters: tuple[Filter, ...] = ()
    """What an event must meet."""
    joins: bool = False
    """Whether it joins the parts of a fan-out."""
    ready: bool = True
    """Whether it delivers."""
    reason: str = ""
    """What is wrong when it does not."""


class ScheduleCounts(View):
    """What became of a schedule's firings, as far as the platform's counters reach back."""

    fired: int = 0
    """Firings whose event is in the broker."""
    missed: int = 0
    """Firings that were left out since the platform was down, or the broker away for too long."""
    last: datetime | None = None
    """For when the newest firing was planned."""
    next: datetime | None = None
    """For when the next firing is planned; none while it rests."""
    late_seconds: float | None = None
    """How late the newest firing's event was in the broker, jitter aside."""


class ScheduleStatus(ScheduleCounts):
    """One schedule."""

    name: str
    """Its name."""
    namespace: str
    """Its namespace."""
    cron: str
    """When it fires."""
    time_zone: str
    """The time zone of that."""
    broker: str
    """Name of the broker that it fills."""
    event_type: str
    """The type of its events."""
    missed_policy: str
    """What becomes of firings whose time passed while the platform was down."""
    jitter_seconds: float = 0.0
    """Up to how long each firing is put off."""
    suspended: bool = False
    """Whether it rests."""
    ready: bool = True
    """Whether it fires, or would if it did not rest."""
    reason: str = ""
    """What is wrong when it does not."""


class BrokerStatus(EventCounts):
    """One broker; its counts are those of its triggers together."""

    name: str
    """Its name."""
    namespace: str
    """Its namespace."""
    url: str
    """Where events are sent to it."""
    published: int = 0
    """Events that it has taken in durably."""


class PartStatus(View):
    """One part of the platform, such as the gateway or the event log."""

    name: str
    """Its name."""
    healthy: bool
    """Whether it does its work."""
    detail: str = ""
    """What is wrong, or else worth knowing."""
    address: str | None = None
    """Where it listens."""
    pid: int | None = None
    """Its process."""
    version: str | None = None
    """The version of the software that it is."""
    restarts: int = 0
    """How often it was started again."""
    memory_bytes: int | None = None
    """What it has of memory to itself."""


class PlatformStatus(View):
    """The platform."""

    version: str
    """Torpor's version."""
    started_at: datetime
    """When it was started."""
    gateway_url: str
    """Where functions are called and events are sent."""
    parts: tuple[PartStatus, ...] = ()
    """What it is made of."""
    functions: int = 0
    """How many functions are declared."""
    triggers: int = 0
    """How many triggers are declared."""
    schedules: int = 0
    """How many schedules are declared."""
    sources: tuple[str, ...] = ()
    """The paths that are watched for declarations."""
    loaded_at: datetime | None = None
    """When declarations were last taken over."""
    faults: tuple[str, ...] = ()
    """What was wrong with the declarations when they were last read; then the ones before are kept."""


class LogLine(View):
    """One line that an instance wrote."""

    time: datetime
    """When the platform read it."""
    instance: str
    """Id of the instance."""
    stream: Literal["stdout", "stderr"]
    """Where it was written to."""
    text: str
    """The line, without its end."""
