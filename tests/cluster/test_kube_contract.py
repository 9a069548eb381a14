"""A real API server keeps the contract that the one in memory is held to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.kube")

from torpor.providers.kubernetes.connection import connect  # noqa: E402
from torpor.providers.kubernetes.kube import closing  # noqa: E402
from torpor.testing.contracts.kube import CASES, KubeRig  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.cluster.clusters import Cluster


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
