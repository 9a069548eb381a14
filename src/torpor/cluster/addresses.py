"""From EndpointSlices to addresses. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.endpoint import Endpoint, InstanceEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torpor.providers.kubernetes.resources import Object


def addresses(slices: Iterable[Object]) -> dict[Endpoint, bool]:
    """The pods that are not about to end, and whether the kubelet finds them ready.

    By ``serving``: ``ready`` is always true where a Service publishes addresses that are not ready.
    """
    found: dict[Endpoint, bool] = {}
    for item in slices:
        ports = item.get("ports") or ()
        for one in item.get("endpoints") or ():
            conditions = one.get("conditions", {})
            if conditions.get("terminating") or not ports or not one.get("addresses"):
                continue
            # All addresses of one endpoint are the same pod's: the first is enough (discovery.k8s.io/v1).
            pod = (one.get("targetRef") or {}).get("name", "")
            endpoint = InstanceEndpoint(one["addresses"][0], ports[0]["port"], pod)
            found[endpoint] = found.get(endpoint, False) or bool(conditions.get("serving", True))
    return found


def ready(slices: Iterable[Object]) -> tuple[Endpoint, ...]:
    """The pods that take requests, in order."""
    return tuple(sorted(endpoint for endpoint, serving in addresses(slices).items() if serving))
