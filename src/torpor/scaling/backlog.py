"""What waits for functions that are scaled by their events (``metric: lag``), beside their requests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import orjson

from torpor.errors import TorporError
from torpor.scaling.load import Load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from torpor.clock import Clock

_LOG = logging.getLogger(__name__)
_CALLS = " calls"
REST_SECONDS = 2.0
"""How often is asked while nothing waits; else it is with every look at the traffic."""


class Backlog(NamedTuple):
    """What waits in one queue, at a trigger or of a function's calls, or for a function in all.

    ``events`` is how many wait or are under way, ``oldest_seconds`` for how long the oldest has waited that
    was not begun.
    """

    events: int
    oldest_seconds: float = 0.0


def encode(backlogs: Mapping[str, Backlog]) -> bytes:
    """``backlogs`` by queue as JSON, the way an events process tells them at ``POST /backlogs``."""
    return orjson.dumps({key: each._asdict() for key, each in backlogs.items()})


def decode(body: bytes) -> dict[str, Backlog]:
    """What :func:`encode` made; raises ``ValueError`` for anything else."""
    document = orjson.loads(body)
    try:
        return {
            str(key): Backlog(int(each["events"]), float(each["oldest_seconds"]))
            for key, each in document.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no backlogs by queue: {error!r}") from error


def calls_of(function_key: str) -> str:
    """The key of the queue of a function's calls that nobody waits for; no trigger has such a one."""
    return f"{function_key}{_CALLS}"


def called_by(queue: str) -> str | None:
    """The function whose calls wait in the queue of this key; ``None`` where it is a trigger's."""
    return queue.removesuffix(_CALLS) if queue.endswith(_CALLS) else None


def queues(functions: Iterable[str], triggers: Mapping[str, str]) -> dict[str, str]:
    """The queues in which something may wait for ``functions``, and for which of them.

    ``triggers`` says to which function each delivers.
    """
    wanted = set(functions)
    found = {trigger: function for trigger, function in triggers.items() if function in wanted}
    return {**found, **{calls_of(function): function for function in sorted(wanted)}}


def backlogs(told: Iterable[Mapping[str, Backlog]], queues: Mapping[str, str]) -> dict[str, Backlog]:
    """What waits for each function, by its key: in its queues, all of it, and the oldest of that.

    ``told`` is what each events process says of queues, by their keys: all look at the same log, so that the
    largest number counts. ``queues`` says for which function something waits there.
    """
    largest: dict[str, Backlog] = {}
    for each in told:
        for queue, backlog in each.items():
            known = largest.get(queue, backlog)
            oldest_seconds = max(known.oldest_seconds, backlog.oldest_seconds)
            largest[queue] = Backlog(max(known.events, backlog.events), oldest_seconds)
    found: dict[str, Backlog] = {}
    for queue, backlog in largest.items():
        if (function := queues.get(queue)) is not None:
            known = found.get(function, Backlog(0))
            oldest_seconds = max(known.oldest_seconds, backlog.oldest_seconds)
            found[function] = Backlog(known.events + backlog.events, oldest_seconds)
    return found


async def waiting(
    lagging: Mapping[str, bool],
    triggers: Mapping[str, str],
    ask: Callable[[Mapping[str, bool]], Awaitable[Iterable[Mapping[str, Backlog]]]],
) -> dict[str, Backlog]:
    """What waits for each of the functions ``lagging``, which says of each whether its age is wanted too.

    ``triggers`` says to which function each delivers, and ``ask`` what each events process tells of queues.
    Raises what ``ask`` raises.
    """
    asked = queues(lagging, triggers)
    return backlogs(await ask({queue: lagging[function] for queue, function in asked.items()}), asked)


class BacklogLoads:
    """Observes loads by ``observe``, and by ``ask`` the backlogs of the functions that ``lagging`` names.

    ``lagging`` says of each whether its oldest event counts too, and names none that rests: what comes for it
    wakes it. While backlogs can't be had, what was known last stands for them: others go on being scaled.
    """

    def __init__(
        self,
        clock: Clock,
        observe: Callable[[], Awaitable[Mapping[str, Load]]],
        lagging: Callable[[], Mapping[str, bool]],
        ask: Callable[[Mapping[str, bool]], Awaitable[Mapping[str, Backlog]]],
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._lagging = lagging
        self._ask = ask
        self._known: Mapping[str, Backlog] = {}
        self._asked: Mapping[str, bool] = {}
        self._due = 0.0
        self._said = ""

    async def observe(self) -> Mapping[str, Load]:
        """The load of each function. Raises what ``observe`` raises."""
        loads = await self._observe()
        lagging = self._lagging()
        if not lagging:
            return loads
        if lagging != self._asked or self._clock.monotonic() >= self._due:
            await self._ask_again(lagging)
        found = dict(loads)
        for key in lagging:
            waiting = self._known.get(key, Backlog(0))
            if key in found or waiting.events:
                load = found.get(key, Load(0.0, 0))
                found[key] = load._replace(backlog=waiting.events, oldest_seconds=waiting.oldest_seconds)
        return found

    async def _ask_again(self, lagging: Mapping[str, bool]) -> None:
        now = self._clock.monotonic()
        try:
            self._known, self._said = await self._ask(lagging), ""
        except TorporError as error:
            if str(error) != self._said:
                self._said = str(error)
                _LOG.warning("how many events wait for functions can't be observed: %s", error)
        self._asked = lagging
        self._due = now if any(each.events for each in self._known.values()) else now + REST_SECONDS
