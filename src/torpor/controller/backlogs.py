"""What waits for the functions that are scaled by that, as the events pods tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.scaling.backlog import waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torpor.controller.firings import EventsPods
    from torpor.controller.world import World
    from torpor.scaling.backlog import Backlog


class Backlogs:
    """Of the Functions and Triggers in ``world``, by what ``pods`` say; ``is_awake`` tells who is scaled."""

    def __init__(self, world: World, pods: EventsPods, is_awake: Callable[[str], bool]) -> None:
        self._world = world
        self._pods = pods
        self._is_awake = is_awake

    def lagging(self) -> Mapping[str, bool]:
        """The keys of the Functions that are scaled by what waits for them, and whether by its age too."""
        scalings = {
            key: item.get("spec", {}).get("scaling", {}) for key, item in self._world.functions.items.items()
        }
        return {
            key: "targetAge" in scaling
            for key, scaling in scalings.items()
            if scaling.get("metric") == "lag" and self._is_awake(key)
        }

    async def ask(self, lagging: Mapping[str, bool]) -> Mapping[str, Backlog]:
        """What waits for each Function. Raises :class:`~torpor.errors.ClusterUnreachableError`."""
        triggers = {
            key: f"{item['metadata']['namespace']}/{item['spec']['subscriber']['function']}"
            for key, item in self._world.triggers.items.items()
        }
        return await waiting(lagging, triggers, self._pods.backlogs)
