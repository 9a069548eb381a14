"""A backlog limit in a cluster: two events pods refuse what is too much, and deliver what they took in."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.platform import until
from tests.cluster.test_events import whole_parts

if TYPE_CHECKING:
    from tests.cluster.clusters import Cluster
    from tests.cluster.platform import Platform

LIMIT = 30
WORKER = Path(__file__).parent / "worker"


def _declarations(image: str) -> list[dict[str, Any]]:
    function = {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "worker"},
        "spec": {"image": image, "containerConcurrency": 1, "scaling": {"maxScale": 1}},
    }
    trigger = {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": "worker"},
        "spec": {
            "filters": [{"exact": {"type": "work"}}],
            "subscriber": {"function": "worker"},
            "parallelism": 1,
            "backlog": {"limit": LIMIT},
        },
    }
    return [function, trigger]


def _post(url: str, event_id: str) -> tuple[int, dict[str, str], Any]:
    headers = {"ce-specversion": "1.0", "ce-id": event_id, "ce-source": "/t", "ce-type": "work"}
    request = urllib.request.Request(url, b"", headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, {}, None
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), json.loads(error.read())


def test_producers_are_refused_once_as_many_wait_as_may(
    cluster: Cluster, platform: Platform, namespace: str
) -> None:
    whole_parts(platform, "events", 2)
    cluster.apply(_declarations(cluster.build(WORKER)["worker"]), namespace)

    trigger = f"{namespace}/worker"
    until(lambda: bool(platform.states(trigger)), "the trigger at work in all events pods")
    with platform.reachable() as gateway:
        url = f"{gateway}/events/{namespace}/default"
        answers = [_post(url, str(number)) for number in range(6 * LIMIT)]
    refused = [(headers, told) for status, headers, told in answers if status != 202]
    assert {status for status, _, _ in answers} == {202, 429}
    assert all(1 <= int(headers["retry-after"]) <= 60 for headers, _ in refused)
    assert {told["trigger"] for _, told in refused} == {f"{namespace}/worker"}
    accepted = len(answers) - len(refused)
    print(f"\n{accepted} taken in, {len(refused)} refused")

    def delivered() -> int:
        return sum(state["delivered"] for state in platform.states(trigger))

    until(lambda: delivered() >= accepted, "all that was taken in")
    assert [state["deadLettered"] for state in platform.states(trigger)] == [0, 0]
    cluster.kubectl("delete", "functions,triggers", "--all", "-n", namespace)
