"""Labels, annotations and names that the controller gives, and that gateways and people find things by."""

from __future__ import annotations

from typing import Final

FUNCTION: Final = "torpor.dev/function"
"""Label: the function that an object serves."""
REVISION: Final = "torpor.dev/revision"
"""Label: the revision of it."""
HASH: Final = "torpor.dev/hash"
"""Label of a revision: what it is made of, so that a return to a former spec finds it."""
MANAGED: Final = "app.kubernetes.io/managed-by"
PART_OF: Final = "app.kubernetes.io/part-of"
COMPONENT: Final = "app.kubernetes.io/component"
SELECTOR: Final = f"{FUNCTION},{MANAGED}=torpor"
"""Selects every object that the controller makes for functions."""
SCALE_MANAGER: Final = "torpor-scale"
"""Field manager of how many instances there are."""
PARKED_SINCE: Final = "torpor.dev/parked-since"
"""Annotation of a revision's Deployment while it rests parked: since when, in seconds since the epoch."""
DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
"""Kubernetes' annotation of pods: of those that are ready, the ones with the least go first."""
CONTAINER: Final = "function"
PORT: Final = 8080


def part(component: str) -> str:
    """Selects what belongs to one part of the platform."""
    return f"{PART_OF}=torpor,{COMPONENT}={component}"


def helper(function: str) -> str:
    """The name of what a function has one of: its Service, account, policy and budget.

    It begins with a letter, as a Service's must, and is no part of the platform's, whatever the function is.
    """
    return f"fn-{function}"


def revision(function: str, number: int) -> str:
    """The name of a revision, and of its Deployment."""
    return f"{function}-{number:05d}"
