# ruff: noqa: E501 - tables are read by the line
"""How long images were pulled, by what kubelets of several versions say, and by what an API server has of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from torpor.controller.pulls import follow_pulls, pull_seconds
from torpor.providers.kubernetes.resources import CORE_EVENTS
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from torpor.providers.kubernetes.resources import Object


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        # 1.31 and newer
        ('Successfully pulled image "r.example/f:1" in 717ms (718ms including waiting). Image size: 78005565 bytes.', 0.718),
        ('Successfully pulled image "r.example/f:1" in 3m10.96s (3m12.5s including waiting). Image size: 3072610852 bytes.', 192.5),
        ('Successfully pulled image "r.example/f@sha256:00ff" in 0s (1h0m0.5s including waiting). Image size: 1 bytes.', 3600.5),
        # 1.27 to 1.30
        ('Successfully pulled image "registry.k8s.io/e:1.4" in 7.46s (7.46s including waiting)', 7.46),
        ('Successfully pulled image "f" in 1.315633737s (1.315641898s including waiting)', 1.315641898),
        # 1.20 to 1.26
        ('Successfully pulled image "docker.io/istio/p:1.17.0" in 46.9444707s', 46.9444707),
        ('Successfully pulled image "f" in 250.5µs', 0.0002505),
        # with what it is about before it
        ('spec.containers{function}: Successfully pulled image "f" in 1.3s (1.4s including waiting)', 1.4),
        # it was there: 1.35 and newer, and all before
        ('Container image "f:1" already present on machine and can be accessed by the pod', 0.0),
        ('Container image "f:1" already present on machine', 0.0),
        # before 1.20 it is not said, and who knows what will be
        ('Successfully pulled image "f:1"', None),
        ('Successfully pulled image "f:1" in a while', None),
        ('Successfully pulled image "f:1" within 3s', None),
        ('Pulled the image "f:1" in 3s', None),
        ("", None),
    ],
)  # fmt: skip
def test_messages(message: str, seconds: float | None) -> None:
    assert pull_seconds(message) == (None if seconds is None else pytest.approx(seconds))


def event(name: str, message: str, container: str = "function", **changed: Any) -> Object:
    field = f"spec.containers{{{container}}}"
    return {
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"kind": "Pod", "uid": f"uid-{name}", "fieldPath": field},
        "reason": "Pulled",
        "message": message,
        **changed,
    }


PULLED = 'Successfully pulled image "f" in 1s (2s including waiting)'


def test_pulls_of_functions_are_told_of_and_nothing_is_kept_of_them() -> None:
    async def case() -> None:
        server, clock = ApiServer(), MovableClock()
        server.put(CORE_EVENTS, event("before", PULLED))
        found: list[tuple[str, float]] = []
        task = asyncio.create_task(
            follow_pulls(server.kube(), clock, lambda uid, seconds: found.append((uid, seconds)))
        )

        async def turns() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        await turns()
        server.put(CORE_EVENTS, event("a", PULLED))
        server.put(CORE_EVENTS, event("another-container", PULLED, container="istio-proxy"))
        server.put(CORE_EVENTS, event("another-reason", PULLED, reason="Pulling"))
        server.put(CORE_EVENTS, event("another-kind", PULLED, involvedObject={"kind": "Job", "uid": "u"}))
        server.put(CORE_EVENTS, event("not-understood", "Now it is there"))
        server.put(CORE_EVENTS, event("a", PULLED, count=2))  # the same once more
        server.put(CORE_EVENTS, event("b", 'Container image "f" already present on machine'))
        await turns()
        server.remove(CORE_EVENTS, "default/a")
        server.disconnect()
        await turns()
        server.put(CORE_EVENTS, event("c", PULLED))
        await turns()
        assert found == [("uid-a", 2.0), ("uid-b", 0.0), ("uid-c", 2.0)]
        # One list, and a watch that goes on where it was: none of them looks at what it has no use for.
        assert [call.query.get("watch") for call in server.calls] == [None, "1", "1"]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(case())
