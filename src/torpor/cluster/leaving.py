"""When a part that was told to end may do so: once nobody sends to it any more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torpor.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.clock import Clock
    from torpor.gateway.stats import Traffic

_LOG = logging.getLogger("torpor.gateway")
QUIET_SECONDS = 1.0
"""Who has not heard of the end sends to each of a few pods in turn, and so to this one within that time."""


async def until_quiet(traffic: Callable[[], Awaitable[Traffic]], clock: Clock) -> None:
    """Return once nothing is under way and nothing has come for :data:`QUIET_SECONDS`.

    A proxy in front that hears late of the pod's end would be answered by nobody. What bounds it is the
    pod's ``terminationGracePeriodSeconds``. Where ``traffic`` can't be told, nothing is sure, and it goes on.
    """
    before = await _told(traffic)
    while True:
        await clock.sleep(QUIET_SECONDS)
        now = await _told(traffic)
        if now is not None and now == before and not now.active:
            return
        before = now


async def _told(traffic: Callable[[], Awaitable[Traffic]]) -> Traffic | None:
    try:
        return await traffic()
    except TransportError as error:
        _LOG.warning("Envoy's statistics can't be read: %s", error)
        return None
