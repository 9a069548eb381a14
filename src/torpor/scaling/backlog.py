"""What waits for functions that are scaled by their events (``metric: lag``), beside their requests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torpor.errors import TorporError
from torpor.scaling.load import Load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

_LOG = logging.getLogger(__name__)


def backlogs(pending: Iterable[Mapping[str, int]], functions: Mapping[str, str]) -> dict[str, int]:
    """How many events wait for each function, or are under way to it, by its key.

    ``pending`` is what each events process says of its triggers, by their keys: all look at the same log, so
    that the largest number counts. ``functions`` says to which function a trigger delivers.
    """
    largest: dict[str, int] = {}
    for told in pending:
        for trigger, number in told.items():
            largest[trigger] = max(largest.get(trigger, 0), number)
    found: dict[str, int] = {}
    for trigger, number in largest.items():
        if (function := functions.get(trigger)) is not None:
            found[function] = found.get(function, 0) + number
    return found


class BacklogLoads:
    """Observes loads by ``observe``, and by ``ask`` the backlogs of the functions that ``lagging`` names.

    While those can't be had, what was known last stands for them: others go on being scaled.
    """

    def __init__(
        self,
        observe: Callable[[], Awaitable[Mapping[str, Load]]],
        lagging: Callable[[], Collection[str]],
        ask: Callable[[], Awaitable[Mapping[str, int]]],
    ) -> None:
        self._observe = observe
        self._lagging = lagging
        self._ask = ask
        self._known: Mapping[str, int] = {}
        self._said = ""

    async def observe(self) -> Mapping[str, Load]:
        """The load of each function. Raises what ``observe`` raises."""
        loads = await self._observe()
        lagging = self._lagging()
        if not lagging:
            return loads
        try:
            self._known, self._said = await self._ask(), ""
        except TorporError as error:
            if str(error) != self._said:
                self._said = str(error)
                _LOG.warning("how many events wait for functions can't be observed: %s", error)
        found = dict(loads)
        for key in lagging:
            waiting = self._known.get(key, 0)
            if key in found or waiting:
                found[key] = found.get(key, Load(0.0, 0))._replace(backlog=waiting)
        return found
