"""Which event log a platform has: one URL says it.

``nats://host:port`` is JetStream (several servers of one cluster with commas between), ``kafka://host:port``
Apache Kafka (likewise; ``/prefix`` after it, where several platforms share the brokers), ``memory://`` a log
that ends with its process, for tests.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.errors import StartError
from torpor.events.jetstream import JetStreamLog
from torpor.events.memory import MemoryLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.clock import Clock
    from torpor.events.log import EventLog

_SERVERS = re.compile(r"[^\s:/,@]+:\d{1,5}(,[^\s:/,@]+:\d{1,5})*\Z")
_PREFIX = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
_NAME = "torpor-events"


@dataclass(frozen=True, slots=True)
class Broker:
    """Where events are kept, and how that is reached.

    ``token`` is NATS' secret, ``options`` are librdkafka's, such as ``sasl.password``. Neither is shown.
    ``copies`` is on how many servers of a NATS cluster each stream is.
    Raises :class:`~torpor.errors.StartError` when the URL is none of a broker.
    """

    url: str
    token: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    copies: int = 1

    def __post_init__(self) -> None:
        if problem := _problem(self.url):
            raise StartError(f"broker {self.shown!r}: {problem}")

    @property
    def shown(self) -> str:
        """Its address without what may be secret."""
        return re.sub(r"//[^/]*@", "//***@", self.url)

    @property
    def scheme(self) -> str:
        """``nats``, ``kafka`` or ``memory``."""
        return self.url.partition(":")[0]


def _problem(url: str) -> str | None:
    expected = "nats://host:port, kafka://host:port[,host:port][/prefix] or memory:// was expected"
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in ("nats", "tls", "kafka", "memory"):
        return expected
    if scheme == "memory":
        return expected if rest else None
    if scheme in ("nats", "tls"):
        return None if rest else expected
    servers, slash, prefix = rest.partition("/")
    if not _SERVERS.match(servers):
        return expected
    if slash and not _PREFIX.match(prefix):
        return f"the prefix {prefix!r} is not of lower-case letters, digits and '-', at most 40"
    return None


async def connect(broker: Broker, clock: Clock) -> EventLog:
    """Connect once.

    Raises :class:`~torpor.errors.EventLogError`, and ``StartError`` when Kafka's client is missing.
    """
    if broker.scheme == "memory":
        return MemoryLog(clock)
    if broker.scheme != "kafka":
        return await JetStreamLog.connect(
            broker.url, token=broker.token or None, name=_NAME, clock=clock, copies=broker.copies
        )
    try:
        from torpor.events.kafka import PREFIX, KafkaLog  # noqa: PLC0415 - an extra, which NATS does not need
    except ImportError as error:
        raise StartError("Kafka's client is not installed: pip install 'torpor[kafka]'") from error
    servers, _, prefix = broker.url.removeprefix("kafka://").partition("/")
    options = {"client.id": _NAME, **broker.options}
    return await KafkaLog.connect(servers, prefix=prefix or PREFIX, options=options, clock=clock)


async def read_options(path: str) -> dict[str, str]:
    """Options of Kafka's client from a file of ``name=value`` lines; none without a path.

    Raises :class:`~torpor.errors.StartError`.
    """
    if not path:
        return {}
    try:
        text = await asyncio.to_thread(Path(path).read_text)
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"the options of Kafka's client can't be read from {path}: {error}") from error
    options: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise StartError(f"{path}:{number}: name=value was expected")  # the line may hold a secret
        options[name.strip()] = value.strip()
    return options
