"""One HTTP/1.1 connection to an endpoint: writes a request, parses the answer, one exchange at a time.

It knows nothing of pools and time. What comes of an exchange is told to its :class:`Sink`, by plain calls:
a future and a task less for each request is what makes this client cheap.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from torpor.errors import BrokenError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.transport.message import Headers
    from torpor.transport.outbox import Outbox

MAX_HEAD_BYTES = 64 * 1024
_WRITE_HIGH_WATER_BYTES = 256 * 1024
_JOIN_BYTES = 64 * 1024


class Sink(Protocol):
    """Who wants to know what comes of an exchange. No method may raise."""

    def on_head(self, status: int, headers: Headers) -> None:
        """The final status and the headers are there; informational answers are left out."""
        ...

    def on_data(self, data: bytes) -> None:
        """A piece of the body or, after 101, of the tunnel."""
        ...

    def on_end(self) -> None:
        """The answer is complete; the connection is no longer the sink's."""
        ...

    def on_failure(self, error: TransportError) -> None:
        """Nothing more will come."""
        ...

    def on_writable(self) -> None:
        """What was written has gone out far enough to write more."""
        ...


class Connection(asyncio.Protocol):
    """A connection, at rest or in one exchange.

    ``on_rest`` is called when an exchange has ended and another may follow, ``on_gone`` when it was closed.
    Whole requests are written by way of ``outbox``, unless they are large.
    """

    def __init__(
        self,
        outbox: Outbox,
        on_rest: Callable[[Connection], None],
        on_gone: Callable[[Connection], None],
    ) -> None:
        self._outbox = outbox
        self._on_rest = on_rest
        self._on_gone = on_gone
        self._transport: asyncio.Transport | None = None
        self._open = False
        self._parser = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self.rested_at = 0.0
        self.writable = True
        self._reset(head_only=False, upgrade=False)

    def _reset(self, *, head_only: bool, upgrade: bool) -> None:
        self._head_only = head_only
        self._may_upgrade = upgrade
        self._headers: Headers = []
        self._head_bytes = 0
        self._head_done = False
        self._complete = False
        self._keep_alive = False
        self._until_close = True
        self._sent_all = False
        self._tunnel = False

    @property
    def usable(self) -> bool:
        """Whether a request may be written: it is open and at rest."""
        return self._open and self._sink is None

    def start(self, sink: Sink, head: bytes, body: bytes | None, *, head_only: bool, upgrade: bool) -> None:
        """Write a request. ``body`` is all of it, or ``None`` when :meth:`write` brings it piece by piece."""
        self._reset(head_only=head_only, upgrade=upgrade)
        self._sink = sink
        transport = self._transport
        if transport is None:
            raise RuntimeError("a request on a connection that is not usable")
        if body is None:
            transport.write(head)
        elif len(body) < _JOIN_BYTES:
            self._outbox.add(self, head + body)
        else:
            transport.writelines((head, body))
            self._sent_all = True

    def write_whole(self, request: bytes) -> None:
        """Called by the outbox with what it was given; who has lost the connection meanwhile knows of it."""
        transport = self._transport
        if self._open and transport is not None and not transport.is_closing():
            transport.write(request)
            self._sent_all = True

    def write(self, data: bytes) -> None:
        """Write a piece of the request's body, framed already, or of the tunnel."""
        if self._open and self._transport is not None:
            self._transport.write(data)

    def finish(self) -> None:
        """The request's body was written; in a tunnel: nothing more will be."""
        self._sent_all = True
        if self._tunnel and self._open and self._transport is not None:
            self._transport.write_eof()

    def pause(self) -> None:
        """Read no more until :meth:`resume`."""
        if self._open and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._open and self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close a connection that is at rest."""
        self._open = False
        if self._transport is not None:
            self._transport.close()

    def abort(self, error: TransportError | None = None) -> None:
        """Close at once; an exchange under way fails with ``error``, if one is given."""
        sink, self._sink = self._sink, None
        self._open = False
        if self._transport is not None:
            self._transport.abort()
        if sink is not None and error is not None:
            sink.on_failure(error)

    # --- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._open = True
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER_BYTES)

    def eof_received(self) -> bool:
        """Called by the loop, which closes the connection then."""
        self._open = False
        return False

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.writable = False

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.writable = True
        if self._sink is not None:
            self._sink.on_writable()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        sink = self._sink
        if sink is None:  # nobody asked: whatever it is, it can't be an answer
            self.abort()
            return
        if self._tunnel:
            sink.on_data(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if not (self._complete and self._head_only):
                self.abort(_cause(error))
                return
            self._keep_alive = False  # a body after the answer to HEAD
        if self._complete:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        sink, self._sink = self._sink, None
        self._open = False
        self._transport = None
        if sink is not None:
            if exc is None and (self._tunnel or (self._head_done and self._until_close)):
                sink.on_end()
            else:
                when = "in the middle of its answer" if self._head_done else "before it answered"
                sink.on_failure(BrokenError(f"the other side closed the connection {when}"))
        self._on_gone(self)

    # --- httptools --------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise BrokenError(f"the head of the answer is larger than {MAX_HEAD_BYTES} bytes")
        if self._head_done:
            return
        lower = name.lower()
        if lower in (b"content-length", b"transfer-encoding"):
            self._until_close = False
        self._headers.append((lower, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            return
        if status == 101 and not self._may_upgrade:
            raise BrokenError("the answer switches to a protocol that nobody asked for")
        self._head_done = True
        if status in (204, 304) or self._head_only:
            self._until_close = False
        if self._sink is not None:
            self._sink.on_head(status, self._headers)
        if self._head_only:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        if self._sink is not None and not self._head_only:
            self._sink.on_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._parser.get_status_code() < 200:
            self._headers = []
            self._until_close = True
        elif self._head_done and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
        elif self._complete and not self._head_only:
            raise BrokenError("a second answer came to one request")

    # --- the end of an exchange -------------------------------------------------------------------------

    def _switch(self, rest: bytes) -> None:
        if not self._head_done or self._sink is None:  # the sink gave up while the head was told to it
            self.abort()
            return
        self._tunnel = True
        if rest:
            self._sink.on_data(rest)

    def _end(self) -> None:
        sink, self._sink = self._sink, None
        transport = self._transport
        if transport is None or not self._open:
            if sink is not None:
                sink.on_end()
            return
        if self._head_only:
            self._parser = httptools.HttpResponseParser(self)  # it may wait for a body, which HEAD never has
        # An answer can come before all of the request went out: then what follows on the wire is still that.
        if self._keep_alive and self._sent_all and transport.get_write_buffer_size() == 0:
            self._on_rest(self)
        else:
            self.close()
        if sink is not None:
            sink.on_end()


def _cause(error: httptools.HttpParserError) -> TransportError:
    """What to raise for what went wrong while parsing: httptools wraps what a callback raised."""
    inner = error.__context__
    if isinstance(inner, TransportError):
        return inner
    broken = BrokenError(f"the answer is not HTTP: {error}")
    broken.__cause__ = error
    return broken
