"""Where a platform keeps its blobs, by the URL of the place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.blobs.objects import ObjectPlace
from torpor.errors import StartError
from torpor.events.nats_place import NatsPlace

if TYPE_CHECKING:
    from torpor.blobs import Keeper
    from torpor.clock import Clock

SCHEMES = ("file", "s3", "gs", "az", "nats")


def blob_keeper(url: str, clock: Clock, *, nats_token: str = "", nats_copies: int = 1) -> Keeper:
    """The place at ``url``; it is reached when it is first used.

    Raises :class:`~torpor.errors.StartError` for one of another kind.
    """
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise StartError(f"{url!r} is no place for blobs; it begins with one of {known}")
    if scheme == "nats":
        return NatsPlace(url, clock, token=nats_token, copies=nats_copies)
    return ObjectPlace(url.rstrip("/"))
