"""What the log keeps for triggers that are not declared any more: finds it, and removes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.log import ConsumerSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from torpor.events.courier import Route
    from torpor.events.log import EventLog
    from torpor.events.stats import Stats

_LOG = logging.getLogger("torpor.events")


class Stray(NamedTuple):
    """What a log keeps for a trigger: a consumer of a broker's stream, or a stream of groups."""

    stream: str
    consumer: str = ""


def source(route: Route) -> str:
    """The stream that a route's events come from."""
    of = names.dead_stream if route.sink else names.broker_stream
    return of(route.broker_key)


def _consumer(route: Route) -> str:
    """The name of the consumer of a route's events."""
    if route.direct:
        return names.DIRECT
    return (names.sink_consumer if route.sink else names.trigger_consumer)(route.key)


async def find_strays(log: EventLog, wanted: Collection[Route]) -> set[Stray]:
    """What belongs to triggers that are not among ``wanted``, or that read another broker now."""
    readers = {(source(each), _consumer(each)) for each in wanted}
    groups = {names.groups_stream(each.key) for each in wanted if each.trigger.spec.join is not None}
    found: set[Stray] = set()
    for stream in await log.streams():
        if stream.startswith(f"{names.GROUPS}."):
            found |= {Stray(stream)} if stream not in groups else set()
        elif stream.startswith(f"{names.BROKER}."):
            found |= {Stray(stream, each) for each in await log.consumers(stream)} - readers
        elif stream.startswith(f"{names.DEAD}."):
            consumers = await log.consumers(stream)
            found |= {Stray(stream, each) for each in consumers if each.startswith(names.SINK)} - readers
    return found


async def forget_strays(log: EventLog, stats: Stats, strays: Iterable[Stray]) -> None:
    """Remove them, with the events that waited for them, and say how many these were."""
    for stream, consumer in sorted(strays):
        if consumer:
            await _tell(log, stats, stream, consumer)
            await log.remove_consumer(stream, consumer)
        else:
            _LOG.info("the groups of a trigger are forgotten", extra={"stream": stream})
            await log.remove_stream(stream)


async def _tell(log: EventLog, stats: Stats, stream: str, consumer: str) -> None:
    """Say how many events wait for a trigger that is forgotten: for it alone, nobody else misses them."""
    reader = await log.consumer(ConsumerSpec(stream, consumer), keep=True)
    about: dict[str, object] = {"stream": stream, "consumer": consumer}
    try:
        waiting = await reader.pending()
    except EventLogError as error:  # such as that all that waits is still being read
        _LOG.warning("a trigger is forgotten", extra={**about, "error": str(error)})
        return
    finally:
        await reader.close()
    stats.forgotten += waiting
    about["waiting"] = waiting
    if not waiting:
        _LOG.info("a trigger is forgotten", extra=about)
    else:
        kept = "the broker keeps what waited for a day after it came; `torpor events replay` delivers it"
        _LOG.warning("a trigger is forgotten while events wait for it", extra={**about, "kept": kept})
