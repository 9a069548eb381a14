"""Envoy's configuration over one gRPC stream: the shell around :mod:`torpor.gateway.delta`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from torpor.errors import GatewayError
from torpor.gateway.delta import Change, Session, Store
from torpor.transport.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.gateway")
_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class _Waiter:
    def __init__(self, changes: Iterable[Change]) -> None:
        self.changes = list(changes)
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Stream:
    def __init__(self, store: Store) -> None:
        self.session = Session(store)
        self.due = asyncio.Event()


class AdsServer:
    """Serves resources to Envoy, and knows when it has taken them in. Belongs to one running loop."""

    def __init__(self, clock: Clock) -> None:
        self._store = Store(secrets.token_hex(4))
        self._deadlines = Deadlines(clock)
        self._streams: list[_Stream] = []
        self._waiters: set[_Waiter] = set()
        self._client_alive = False
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> None:
        """Listen at ``address``, such as ``unix:/run/ads.sock``."""
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        method = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=DeltaDiscoveryRequest.FromString,
            response_serializer=DeltaDiscoveryResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(_SERVICE, {"DeltaAggregatedResources": method})
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(address)
        await server.start()
        self._server = server

    async def close(self) -> None:
        """End the streams; whoever waits is let go."""
        self.client_alive(False)
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
        await self._deadlines.close()

    def client_alive(self, alive: bool) -> None:
        """Whether a client runs, so that it has its configuration or will ask for it; else nobody waits."""
        self._client_alive = alive
        if not alive:
            self._streams.clear()
        self._review_all()

    @property
    def connected(self) -> bool:
        """Whether a client has its stream open."""
        return bool(self._streams)

    def put(self, type_url: str, name: str, payload: bytes) -> Change:
        """Set a resource and send it to who subscribed to it."""
        return self._tell(self._store.put(type_url, name, payload))

    def remove(self, type_url: str, name: str) -> Change:
        """Remove a resource, at the clients too."""
        return self._tell(self._store.remove(type_url, name))

    async def settle(self, changes: Iterable[Change], *, timeout_seconds: float) -> None:
        """Return when Envoy has acknowledged ``changes``, or has no use for them, or does not run.

        Raises :class:`~torpor.errors.GatewayError` when it refuses one, or says nothing in time.
        """
        waiter = _Waiter(changes)
        if self._review(waiter):
            return await waiter.future
        self._waiters.add(waiter)
        alarm = self._deadlines.after(timeout_seconds, lambda: _late(waiter, timeout_seconds))
        try:
            await waiter.future
        finally:
            alarm.cancel()
            self._waiters.discard(waiter)

    # --- waiting ------------------------------------------------------------------------------------------

    def _tell(self, change: Change) -> Change:
        for stream in self._streams:
            if stream.session.changed(change.type_url, change.name):
                stream.due.set()
        return change

    def _review_all(self) -> None:
        for waiter in tuple(self._waiters):
            self._review(waiter)

    def _review(self, waiter: _Waiter) -> bool:
        """Settle ``waiter`` if there is nothing more to wait for."""
        if waiter.future.done():
            return True
        if not self._streams:
            if not self._client_alive:
                waiter.future.set_result(None)
            return not self._client_alive
        states = [stream.session.state(change) for change in waiter.changes for stream in self._streams]
        refused = [state for state in states if isinstance(state, str)]
        if refused:
            waiter.future.set_exception(GatewayError(f"Envoy refused its configuration: {refused[0]}"))
        elif all(states):
            waiter.future.set_result(None)
        return waiter.future.done()

    # --- one stream ---------------------------------------------------------------------------------------

    async def _serve(
        self, requests: AsyncIterator[DeltaDiscoveryRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        stream = _Stream(self._store)
        reader = asyncio.get_running_loop().create_task(self._read(stream, requests))
        reader.add_done_callback(lambda _: stream.due.set())
        try:
            while not reader.done():
                await stream.due.wait()
                stream.due.clear()
                for response in stream.session.send():
                    await context.write(response)
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            if stream in self._streams:
                self._streams.remove(stream)
            self._review_all()

    async def _read(self, stream: _Stream, requests: AsyncIterator[DeltaDiscoveryRequest]) -> None:
        async for request in requests:
            refusal = stream.session.receive(request)
            if refusal is not None:
                names = ", ".join(refusal.names[:5])
                _LOG.error("Envoy refused %s of %s: %s", refusal.type_url, names, refusal.error)
            if stream not in self._streams:
                self._streams.append(stream)
            stream.due.set()
            self._review_all()


def _late(waiter: _Waiter, timeout_seconds: float) -> None:
    if not waiter.future.done():
        names = ", ".join(change.name for change in waiter.changes[:5])
        waiter.future.set_exception(
            GatewayError(
                f"Envoy did not acknowledge its configuration ({names}) within {timeout_seconds:g} s"
            )
        )
