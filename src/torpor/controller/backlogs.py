"""How many events wait for the functions that are scaled by that, as the events pods tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.scaling.backlog import backlogs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.controller.firings import EventsPods
    from torpor.controller.world import World


class Backlogs:
    """Of the Functions and Triggers in ``world``, by what ``pods`` say."""

    def __init__(self, world: World, pods: EventsPods) -> None:
        self._world = world
        self._pods = pods

    def lagging(self) -> list[str]:
        """The keys of the Functions that are scaled by what waits for them."""
        return [
            key
            for key, item in self._world.functions.items.items()
            if item.get("spec", {}).get("scaling", {}).get("metric") == "lag"
        ]

    async def ask(self) -> Mapping[str, int]:
        """What waits for each Function. Raises :class:`~torpor.errors.ClusterUnreachableError`."""
        functions = {
            key: f"{item['metadata']['namespace']}/{item['spec']['subscriber']['function']}"
            for key, item in self._world.triggers.items.items()
        }
        states = await self._pods.states()
        return backlogs(
            [{key: report.pending for key, report in state.triggers.items()} for state in states], functions
        )
