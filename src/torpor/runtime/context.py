"""What a handler can know of the call it serves, and what it may use: ``ctx: Context``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from torpor.errors import BlobError

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from torpor.blobs import BlobStore
    from torpor.runtime.calls import Call


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called, as far as the nearest proxy knows.

    ``address`` is the IP address that the nearest proxy saw (or of the peer, without one); ``scheme`` is
    the one that the caller used; ``request_id`` is in the logs of all that the request passed.
    """

    address: str | None
    scheme: str
    request_id: str


class Context:
    """The call that a handler serves."""

    __slots__ = ("_blobs", "_call", "_logger")

    def __init__(self, call: Call, logger: logging.Logger, blobs: BlobStore | None) -> None:
        self._call = call
        self._logger = logger
        self._blobs = blobs

    @property
    def logger(self) -> logging.Logger:
        """A logger whose records say which request, event and trace they belong to."""
        return self._logger

    @property
    def attempt(self) -> int:
        """1 at first, one more each time the event is delivered again."""
        return self._call.attempt

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the call is ended and its caller gets 504; not below 0."""
        return max(0.0, self._call.due - time.monotonic())

    @property
    def deadline(self) -> datetime:
        """When the call is ended, in UTC."""
        return datetime.now(UTC) + timedelta(seconds=self.remaining_seconds)

    @property
    def caller(self) -> Caller:
        """Who called."""
        call = self._call
        return Caller(call.client_address, call.client_scheme, call.request_id)

    @property
    def attributes(self) -> Mapping[str, str]:
        """The event's attributes as text; of a batch, those of its first event; none for plain HTTP."""
        events = self._call.events
        return dict(events[0].attributes) if events else {}

    @property
    def traceparent(self) -> str:
        """The W3C trace context of this call, to hand to whatever it calls."""
        return self._call.trace.traceparent

    @property
    def blobs(self) -> BlobStore:
        """Where large data is kept; :class:`~torpor.errors.BlobError` when there is no place for it."""
        if self._blobs is None:
            raise BlobError(
                "there is no blob store; TORPOR_BLOBS_URL says where one is "
                "(in a cluster with Kafka, the chart's blobs.url)"
            )
        return self._blobs
