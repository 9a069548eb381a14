"""The environment of an instance: pure.

Only what is named in :func:`torpor.settings.passed_on` comes from the platform's own environment, so that
none of its secrets leak into functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.providers.base import Revision

# A runtime that drains has this much longer than the longest call, so that its answer still leaves.
DRAIN_MARGIN_SECONDS = 1.0


def for_revision(revision: Revision, inherited: Mapping[str, str], blobs_url: str) -> dict[str, str]:
    """What all instances of ``revision`` have in common, the platform's own variables winning."""
    function = revision.function
    spec = function.spec
    return {
        **inherited,
        **spec.variables,
        "K_SERVICE": function.metadata.name,
        "K_REVISION": revision.name,
        "K_CONFIGURATION": function.metadata.name,
        "TORPOR_NAMESPACE": function.metadata.namespace,
        "TORPOR_CONTAINER_CONCURRENCY": str(spec.container_concurrency),
        "TORPOR_TIMEOUT_SECONDS": str(spec.timeout_seconds),
        "TORPOR_DRAIN_SECONDS": str(spec.timeout_seconds + DRAIN_MARGIN_SECONDS),
        "TORPOR_MAX_BODY_BYTES": str(spec.http.max_body_bytes),
        "TORPOR_BLOBS_URL": blobs_url,
    }


def for_instance(common: Mapping[str, str], instance: str, port: int) -> dict[str, str]:
    """``common`` with what one instance alone has."""
    return {**common, "PORT": str(port), "TORPOR_INSTANCE": instance}
