"""The API server in memory keeps the contract of a real one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.kube")

from torpor.testing.contracts.kube import CASES, KubeRig  # noqa: E402
from torpor.testing.kube import ApiServer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(case: Callable[[KubeRig], Awaitable[None]]) -> None:
    async def run() -> None:
        server = ApiServer()
        for _ in range(3):  # a server that is not new: it has forgotten its first versions
            server.bookmark()
        server.compact()
        rig = KubeRig(server.kube())
        await case(rig)
        await rig.clean()

    asyncio.run(run())
