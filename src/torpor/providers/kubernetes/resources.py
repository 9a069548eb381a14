"""The kinds of object that Torpor reads or writes, and where the Kubernetes API has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]
"""An object of the Kubernetes API, as its JSON has it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object; ``api`` is its ``apiVersion``."""

    api: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """Where the API has one object, or all of a namespace, or all."""
        base = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        where = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        parts = [self.plural, *([name] if name else ()), *([subresource] if subresource else ())]
        return f"{base}{where}/{'/'.join(parts)}"


FUNCTIONS: Final = Resource("torpor.dev/v1alpha1", "Function", "functions")
TRIGGERS: Final = Resource("torpor.dev/v1alpha1", "Trigger", "triggers")
SCHEDULES: Final = Resource("torpor.dev/v1alpha1", "Schedule", "schedules")
DEPLOYMENTS: Final = Resource("apps/v1", "Deployment", "deployments")
REVISIONS: Final = Resource("apps/v1", "ControllerRevision", "controllerrevisions")
PODS: Final = Resource("v1", "Pod", "pods")
POD_METRICS: Final = Resource("metrics.k8s.io/v1beta1", "PodMetrics", "pods")
SERVICES: Final = Resource("v1", "Service", "services")
SERVICE_ACCOUNTS: Final = Resource("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps")
SECRETS: Final = Resource("v1", "Secret", "secrets")
NAMESPACES: Final = Resource("v1", "Namespace", "namespaces", namespaced=False)
NETWORK_POLICIES: Final = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DISRUPTION_BUDGETS: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENTS: Final = Resource("events.k8s.io/v1", "Event", "events")
CORE_EVENTS: Final = Resource("v1", "Event", "events")
"""The same objects by their older name, which alone finds them by the field of a pod that they are about."""
DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)


def key(item: Object) -> str:
    """``namespace/name`` of an object, or its name where it has no namespace."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])
