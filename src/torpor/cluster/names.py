"""How the parts find one another in a cluster: Services, ports and labels, as the chart has them."""

from __future__ import annotations

from typing import Final

GATEWAY: Final = "torpor-gateway"
"""Service of the public listener, port 80."""
GATEWAY_INTERNAL: Final = "torpor-gateway-internal"
"""Service of the listener for the platform's own parts, where the header ``torpor-function`` is the key."""
EVENTS: Final = "torpor-events"
"""Service of the ingress of events, port 80."""
API: Final = "torpor-api"
"""Service of the REST API, port 80, and of blobs, port 8082."""

HTTP_PORT: Final = 8080
"""A pod's port for callers."""
AGENT_PORT: Final = 8081
"""A pod's port for health, metrics and what other parts ask of it, named ``agent``."""
INTERNAL_PORT: Final = 8082
"""A pod's port for other pods: functions at a gateway, blobs at an API."""


def blobs_url(namespace: str) -> str:
    """Where functions reach blobs of the platform in that namespace."""
    return f"http://{API}.{namespace}.svc:{INTERNAL_PORT}/blobs"
