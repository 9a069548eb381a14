"""What gateways tell, summed up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from torpor.controller.loads import GatewayLoads
from torpor.errors import ClusterUnreachableError, ConnectError
from torpor.providers.kubernetes.resources import PODS
from torpor.scaling.load import Load, decode, encode
from torpor.scaling.waiting import Waiting, encode_waiting
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer
from torpor.tracing import Trace
from torpor.transport.message import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.endpoint import Endpoint
    from torpor.transport import Client

LABELS = {"app.kubernetes.io/part-of": "torpor", "app.kubernetes.io/component": "gateway"}


class _Gateways:
    """Gateways in place of a network: what each tells, by its address."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.clock = MovableClock()
        self.told: dict[str, dict[str, Load] | bytes] = {}
        self.loads = GatewayLoads(self.server.kube(), cast("Client", self), self.clock, "torpor")

    async def request(self, endpoint: Endpoint, *_: object, timeout_seconds: float) -> Response:
        assert endpoint.port == 9000
        told = self.told.get(endpoint.host)
        if told is None:
            raise ConnectError("nobody is there")
        return Response(200, [], told if isinstance(told, bytes) else encode(told))

    def pod(self, host: str, *, ready: bool = True) -> None:
        port = {"name": "agent", "containerPort": 9000}
        pod: dict[str, Any] = {
            "metadata": {"name": f"gateway-{host}", "namespace": "torpor", "labels": LABELS},
            "spec": {"containers": [{"name": "envoy"}, {"name": "gateway", "ports": [port]}]},
            "status": {"podIP": host, "conditions": [{"type": "Ready", "status": str(ready)}]},
        }
        self.server.put(PODS, pod)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def observe(self) -> dict[str, Load]:
        await self.settle()
        return dict(await self.loads.observe())


def run(case: Callable[[_Gateways], Awaitable[None]]) -> None:
    async def inner() -> None:
        gateways = _Gateways()
        task = asyncio.create_task(gateways.loads.mirror.run())
        await gateways.loads.mirror.synced.wait()
        await case(gateways)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(inner())


def test_loads_are_added_up_over_the_gateways_that_are_ready() -> None:
    async def case(gateways: _Gateways) -> None:
        for host in ("10.0.0.1", "10.0.0.2"):
            gateways.pod(host)
        gateways.pod("10.0.0.3", ready=False)
        gateways.told = {
            "10.0.0.1": {"n/f": Load(1.0, 10), "n/g": Load(0.0, 1)},
            "10.0.0.2": {"n/f": Load(2.5, 20)},
        }
        assert await gateways.observe() == {"n/f": Load(3.5, 30), "n/g": Load(0.0, 1)}

    run(case)


def test_totals_never_run_backwards() -> None:
    async def case(gateways: _Gateways) -> None:
        gateways.pod("10.0.0.1")
        gateways.pod("10.0.0.2")
        gateways.told = {"10.0.0.1": {"n/f": Load(0, 10)}, "10.0.0.2": {"n/f": Load(0, 20)}}
        await gateways.observe()
        gateways.told["10.0.0.2"] = {"n/f": Load(0, 3)}  # it has started anew
        assert await gateways.observe() == {"n/f": Load(0, 33)}
        gateways.server.remove(PODS, "torpor/gateway-10.0.0.1")
        assert await gateways.observe() == {"n/f": Load(0, 33)}

    run(case)


@pytest.mark.parametrize("broken", [None, b"no JSON", b"[1]", b'{"n/f": 3}'])
def test_what_a_gateway_said_last_stands_for_it_a_while(broken: bytes | None) -> None:
    async def case(gateways: _Gateways) -> None:
        gateways.pod("10.0.0.1")
        gateways.told = {"10.0.0.1": {"n/f": Load(4, 10)}}
        await gateways.observe()
        del gateways.told["10.0.0.1"]
        if broken is not None:
            gateways.told["10.0.0.1"] = broken
        assert await gateways.observe() == {"n/f": Load(4, 10)}
        await gateways.clock.advance(31)
        with pytest.raises(ClusterUnreachableError):
            await gateways.observe()

    run(case)


def test_without_gateways_nothing_is_known() -> None:
    async def case(gateways: _Gateways) -> None:
        with pytest.raises(ClusterUnreachableError):
            await gateways.observe()

    run(case)


def test_loads_go_through_json_unchanged() -> None:
    loads = {"n/f": Load(1.5, 3)}
    assert decode(encode(loads)) == loads


def test_who_waits_is_told_by_all_gateways_that_answer() -> None:
    async def case(gateways: _Gateways) -> None:
        for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"):
            gateways.pod(host)
        await gateways.settle()
        one, other = (Waiting(Trace(f"00-{n * 32}-{n * 16}-01", ""), 1.0, None) for n in "12")
        gateways.told = {
            "10.0.0.1": encode_waiting([one]),
            "10.0.0.2": b"not a list",
            "10.0.0.3": encode_waiting([other]),
        }
        assert await gateways.loads.waiting("default/f") == [one, other]

    run(case)
