"""Calls that nobody waits for, on a real cluster: none is lost while events pods are killed."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.commands import Commands
from tests.cluster.platform import GATEWAY, NAMESPACE, Platform, is_ready, until
from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

CALLS = 60
_API = f"/api/v1/namespaces/{NAMESPACE}/services/http:torpor-api:80/proxy/api/v1"


class _Caller:
    """Calls the greeter in ``namespace``, as those do who don't wait."""

    def __init__(self, platform: Platform, namespace: str) -> None:
        self.platform = platform
        self._namespace = namespace

    def call(self, gateway: str, name: str, **headers: str) -> str:
        """The id of a call that was accepted, however often that takes: it is one call for all that."""
        url = f"{gateway}/async-function/greeter.{self._namespace}/?name={name}"
        request = urllib.request.Request(url, headers={"Idempotency-Key": name, **headers})
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    assert response.status == 202
                    return str(response.headers["x-call-id"])
            except OSError as error:  # every answer that is an error is one too
                refused = isinstance(error, urllib.error.HTTPError) and error.code not in (404, 502, 503, 504)
                if refused or time.monotonic() >= deadline:
                    raise

    def status(self, call_id: str) -> dict[str, Any]:
        """What the API tells of a call; nothing while no events pod answers."""
        try:
            found: dict[str, Any] = json.loads(
                self.platform.cluster.kubectl("get", "--raw", f"{_API}/calls/{call_id}")
            )
        except ClusterError:
            return {}
        return found

    def wait(self, call_id: str) -> dict[str, Any]:
        """What the API tells of a call once it has ended."""
        until(lambda: self.status(call_id).get("state") in ("succeeded", "failed"), f"the end of {call_id}")
        return self.status(call_id)


@pytest.fixture
def caller(platform: Platform, namespace: str, greeter_image: str) -> _Caller:
    """A function at rest, and two events pods."""
    platform.declare(namespace, "greeter", greeter_image)
    until(lambda: sum(map(is_ready, platform.parts("events"))) >= 2, "two events pods")
    return _Caller(platform, namespace)


def test_a_call_wakes_the_function_and_is_called_back(
    caller: _Caller, kubeconfig: Path, namespace: str
) -> None:
    back = f"http://{GATEWAY}/async-function/greeter.{namespace}/languages"
    with caller.platform.reachable() as gateway:
        call_id = caller.call(gateway, "Ada", **{"X-Callback-Url": back})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            caller.call(gateway, "Eve", **{"X-Callback-Url": "http://127.0.0.1:8081/dead-letters/drop"})
    found = caller.wait(call_id)
    assert (found["state"], found["result"]["status"]) == ("succeeded", 200)
    assert json.loads(found["result"]["body"])["greeting"] == "Hello, Ada!"
    until(lambda: caller.status(call_id)["callback"]["state"] == "delivered", "the callback")
    torpor = Commands(kubeconfig)
    assert torpor.good("calls", "show", call_id, "--wait", "60", "-o", "json").document["id"] == call_id
    steps = torpor.good("explain", call_id, "-o", "json").document["items"][0]["steps"]
    assert [step["what"] for step in steps] == ["accepted", "delivery", "delivery"]


def test_no_call_is_lost_while_events_pods_are_killed(caller: _Caller) -> None:
    ids = []
    with caller.platform.reachable() as gateway:
        for number in range(CALLS):
            ids.append(caller.call(gateway, f"caller-{number}"))
            if number in (CALLS // 3, 2 * CALLS // 3):
                # As when its node is gone: nothing is ended in order, and the API server forgets the pod.
                pod = caller.platform.parts("events")[0]["metadata"]["name"]
                caller.platform.cluster.kubectl(
                    "delete", "pod", pod, "-n", NAMESPACE, "--force", "--grace-period=0"
                )
    assert len(set(ids)) == CALLS
    for number, call_id in enumerate(ids):
        found = caller.wait(call_id)
        assert found["state"] == "succeeded"
        assert json.loads(found["result"]["body"])["greeting"] == f"Hello, caller-{number}!"
    until(lambda: sum(map(is_ready, caller.platform.parts("events"))) >= 2, "two events pods")
