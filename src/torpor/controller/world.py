"""What the controller sees of a cluster: everything of functions, mirrored, and found by its function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.controller import names
from torpor.controller.claims import Claims
from torpor.controller.status import is_ready
from torpor.providers.kubernetes import resources
from torpor.providers.kubernetes.mirror import Mirror
from torpor.providers.kubernetes.resources import key

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object, Resource

_OWNED = (
    resources.DEPLOYMENTS,
    resources.REVISIONS,
    resources.PODS,
    resources.SERVICES,
    resources.SERVICE_ACCOUNTS,
    resources.NETWORK_POLICIES,
    resources.DISRUPTION_BUDGETS,
)


class World:
    """Mirrors of Functions, Triggers, Schedules and all that is made for them.

    ``on_function``, ``on_trigger`` and ``on_schedule`` are told the key of what has to be looked at,
    ``on_pod`` each pod that has changed.
    """

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        on_function: Callable[[str], None],
        on_trigger: Callable[[str], None],
        on_pod: Callable[[Object], None] = lambda _: None,
        on_schedule: Callable[[str], None] = lambda _: None,
    ) -> None:
        def owned(item: Object) -> None:
            if item["kind"] == resources.PODS.kind:
                on_pod(item)
            on_function(function_key(item))

        self.functions = Mirror(kube, resources.FUNCTIONS, clock, lambda item: on_function(key(item)))
        self.triggers = Mirror(kube, resources.TRIGGERS, clock, lambda item: on_trigger(key(item)))
        self.schedules = Mirror(kube, resources.SCHEDULES, clock, lambda item: on_schedule(key(item)))
        self.claims = Claims(on_function)
        """The routes that functions declare, as far as they were looked at."""
        self._owned = {
            one: Mirror(kube, one, clock, owned, labels=names.SELECTOR, group=function_key) for one in _OWNED
        }

    @property
    def mirrors(self) -> list[Mirror]:
        """All of them, to be run."""
        return [self.functions, self.triggers, self.schedules, *self._owned.values()]

    async def synced(self) -> None:
        """Return once everything has been seen."""
        for mirror in self.mirrors:
            await mirror.synced.wait()

    def __getitem__(self, resource: Resource) -> Mirror:
        return self._owned[resource]

    def of(self, resource: Resource, function: str) -> list[Object]:
        """The objects of a kind that serve the function of that key, by name."""
        return self._owned[resource].of(function)

    def pods(self, function: str, revision: str) -> list[Object]:
        """The pods of one revision."""
        return [
            pod
            for pod in self.of(resources.PODS, function)
            if pod["metadata"]["labels"].get(names.REVISION) == revision
        ]

    def deployment(self, function: str, revision: str | None) -> Object | None:
        """The Deployment of one revision."""
        return self._owned[resources.DEPLOYMENTS].items.get(f"{function.partition('/')[0]}/{revision}")

    def serving(self, function: str) -> str | None:
        """The revision that requests go to."""
        namespace, _, name = function.partition("/")
        service = self._owned[resources.SERVICES].items.get(f"{namespace}/{names.helper(name)}")
        if service is None:
            return None
        selected: str | None = (service["spec"].get("selector") or {}).get(names.REVISION)
        return selected

    def ready(self, function: str) -> int:
        """How many pods of the revision that serves take requests."""
        revision = self.serving(function)
        return sum(is_ready(pod) for pod in self.pods(function, revision)) if revision else 0


def function_key(item: Object) -> str:
    """The key of the function that ``item`` serves."""
    metadata = item["metadata"]
    return f"{metadata['namespace']}/{metadata['labels'].get(names.FUNCTION, '')}"
