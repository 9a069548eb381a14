"""How long nodes pulled the images of functions, by the kubelet's own events of it.

A pod's status says nothing of it, and its times have whole seconds. There is no contract about the text of an
event: what is not understood says nothing.

Source: Kubernetes, ``pkg/kubelet/images/image_manager.go``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torpor.controller import names
from torpor.providers.kubernetes.mirror import follow
from torpor.providers.kubernetes.resources import CORE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Event, Kube

# The API server looks through the events of all pods, so that none but those of functions come here.
_CONTAINER = f"spec.containers{{{names.CONTAINER}}}"
_FIELDS = f"reason=Pulled,involvedObject.kind=Pod,involvedObject.fieldPath={_CONTAINER}"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = r"[0-9]+(?:\.[0-9]+)?(?:ms|[uµμ]s|ns|h|m|s)"
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[uµμ]s|ns|h|m|s)")
# The name of the image, which comes before, is in quotes and ends with the last of them.
_PULLED = re.compile(
    rf'Successfully pulled image ".*" in ((?:{_PART})+|0)(?: \(((?:{_PART})+|0) including waiting\))?'
)
_PRESENT = re.compile(r'[Ii]mage ".*" already present on machine')


def pull_seconds(message: str) -> float | None:
    """How long the image was waited for, that of other pods before it included; 0 where it was there already.

    ``None`` if the message does not say.
    """
    if _PRESENT.search(message):
        return 0.0
    found = _PULLED.search(message)
    if found is None:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(found[2] or found[1]))


async def follow_pulls(kube: Kube, clock: Clock, pulled: Callable[[str, float], None]) -> None:
    """Tell ``pulled`` the uid of a pod and for how many seconds its image was waited for, for ever.

    Pulls from before the first look are not told of.
    """

    def tell(event: Event) -> None:
        seconds = pull_seconds(event.item.get("message", ""))
        uid = event.item["involvedObject"].get("uid")
        if event.change == "ADDED" and uid and seconds is not None:
            pulled(uid, seconds)

    await follow(kube, CORE_EVENTS, clock, lambda _: None, tell, fields=_FIELDS)
