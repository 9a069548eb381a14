"""A real API server keeps the contract that the one in memory is held to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.kube")

from tests.cluster.platform import NAMESPACE  # noqa: E402
from torpor.providers.kubernetes.connection import connect  # noqa: E402
from torpor.providers.kubernetes.kube import closing  # noqa: E402
from torpor.testing.contracts.kube import CASES, KubeRig  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.cluster.clusters import Cluster

_CONTROLLER = ("deployment/torpor-controller", "--namespace", NAMESPACE)


@pytest.fixture(scope="module", autouse=True)
def _nobody_else(definitions: Cluster) -> Iterator[None]:
    """The controller of a platform that other tests have installed would write to the same objects."""
    found = definitions.kubectl(
        "get", *_CONTROLLER, "--ignore-not-found", "--output=jsonpath={.spec.replicas}"
    )
    if not found:
        yield
        return
    definitions.kubectl("scale", *_CONTROLLER, "--replicas=0")
    pods = ("pods", "--namespace", NAMESPACE, "--selector=app.kubernetes.io/component=controller")
    definitions.kubectl("wait", "--for=delete", *pods, "--timeout=60s")
    yield
    definitions.kubectl("scale", *_CONTROLLER, f"--replicas={found}")
    definitions.kubectl("rollout", "status", *_CONTROLLER, "--timeout=120s")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(definitions: Cluster, case: Callable[[KubeRig], Awaitable[None]]) -> None:
    async def run() -> None:
        async with closing(await connect(kubeconfig=str(definitions.kubeconfig))) as kube:
            rig = KubeRig(kube)
            try:
                await case(rig)
            finally:
                await rig.clean()

    asyncio.run(run())
