"""W3C trace context: which trace a call belongs to, and what is handed on. Pure, but for new ids.

Source: W3C Trace Context (Recommendation), sections 3.2 and 3.3; CloudEvents extension "Distributed Tracing".
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_MAX_STATE = 512


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: ``traceparent`` and ``tracestate`` (which may be empty) as they are on the wire."""

    traceparent: str
    tracestate: str

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return self.traceparent[36:52]

    def attributes(self) -> dict[str, str]:
        """What an event that follows carries."""
        if self.tracestate:
            return {"traceparent": self.traceparent, "tracestate": self.tracestate}
        return {"traceparent": self.traceparent}


def parse(traceparent: str, tracestate: str) -> Trace | None:
    """The trace that is handed in, or ``None`` when it is not valid, which counts as none."""
    match = _TRACEPARENT.match(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, _, rest = match.groups()
    if version == "ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and rest):
        return None
    return Trace(traceparent[:55], tracestate if len(tracestate) <= _MAX_STATE else "")


def begin() -> Trace:
    """A new trace, not sampled: nobody records it, but the logs of all that follows share its id."""
    return Trace(f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-00", "")


def trace_of(headers: Mapping[bytes, bytes], attributes: Mapping[str, str]) -> Trace:
    """The trace of a call, handed in or begun here."""
    return handed_in(headers, attributes) or begin()


def handed_in(headers: Mapping[bytes, bytes], attributes: Mapping[str, str]) -> Trace | None:
    """The trace that a call comes with.

    The event's own goes before the request's, since a proxy that knows nothing of events may begin a trace
    for each request; where they are the same trace, the request's place in it is the nearer one.
    """
    of_event = parse(attributes.get("traceparent", ""), attributes.get("tracestate", ""))
    given = headers.get(b"traceparent")
    if given is not None:
        state = headers.get(b"tracestate", b"").decode("latin-1")
        of_request = parse(given.decode("latin-1"), state if state.isprintable() else "")
        if of_request is not None and (of_event is None or of_event.trace_id == of_request.trace_id):
            return of_request
    return of_event
