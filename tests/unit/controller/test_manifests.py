# ruff: noqa: E501 - tables are read by the line
"""What should be in the cluster for a function."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.unit.controller.bench import PLATFORM, function
from torpor.controller import manifests
from torpor.spec.objects import function_of

OWNER: dict[str, Any] = {
    "apiVersion": "torpor.dev/v1alpha1",
    "kind": "Function",
    "metadata": {"name": "f", "namespace": "default", "uid": "1"},
}


def pod(**spec: Any) -> dict[str, Any]:
    made = manifests.deployment(function_of(function(**spec)), "f-00001", OWNER, PLATFORM)
    template: dict[str, Any] = made["spec"]["template"]["spec"]
    return template


def test_a_pod_keeps_the_restricted_profile_and_has_no_token() -> None:
    spec = pod()
    [container] = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_pod_has_time_for_its_longest_call() -> None:
    spec = pod(timeoutSeconds=30.5)
    assert spec["terminationGracePeriodSeconds"] > 31 + manifests.PRE_STOP_SECONDS
    [container] = spec["containers"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == manifests.PRE_STOP_SECONDS
    assert {"name": "TORPOR_DRAIN_SECONDS", "value": "31.5"} in container["env"]


def test_variables_are_values_references_and_the_contracts() -> None:
    reference = {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}
    [container] = pod(env=[{"name": "A", "value": "b"}, {"name": "B", "valueFrom": reference}])["containers"]
    env = {one["name"]: one for one in container["env"]}
    assert len(env) == len(container["env"])
    assert env["A"] == {"name": "A", "value": "b"}
    assert env["B"] == {"name": "B", "valueFrom": reference}
    assert (env["PORT"]["value"], env["K_SERVICE"]["value"], env["K_REVISION"]["value"]) == (
        "8080",
        "f",
        "f-00001",
    )
    assert env["TORPOR_INSTANCE"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_a_function_gets_the_platforms_variables_of_traces_but_for_its_own() -> None:
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
    own = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://mine:4318"}
    platform = dataclasses.replace(PLATFORM, traces=traces)
    made = manifests.deployment(function_of(function(env=[own])), "f-00001", OWNER, platform)
    [container] = made["spec"]["template"]["spec"]["containers"]
    found = [one for one in container["env"] if one["name"].startswith("OTEL")]
    assert sorted(found, key=lambda one: one["name"]) == [
        own,
        {"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0.1"},
    ]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"limits": {"memory": "512Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}}),
        ({"requests": {"memory": "1Gi"}}, {"limits": {"memory": "1Gi"}, "requests": {"cpu": "50m", "memory": "1Gi"}}),
        ({"limits": {"cpu": "1", "memory": "128Mi"}}, {"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "1", "memory": "128Mi"}}),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "0.5"}}, {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "0.5", "memory": "64Mi"}}),
    ],
)  # fmt: skip
def test_resources_have_defaults(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert manifests.resources(function_of(function(resources=given)).spec) == wanted


def test_only_what_makes_a_pod_makes_a_revision() -> None:
    def digest(**spec: Any) -> str:
        return manifests.digest(function_of(function(**spec)).spec)

    assert digest() == digest(scaling={"maxScale": 9}, http={"paths": ["/a"]}, source={"path": "x"})
    others: list[dict[str, Any]] = [
        {"image": "a:2"},
        {"env": [{"name": "A", "value": "b"}]},
        {"containerConcurrency": 1},
    ]
    assert len({digest(), *(digest(**spec) for spec in others), digest(http={"maxBodyBytes": 1})}) == 5


def test_a_revision_can_be_made_again_from_its_record() -> None:
    then = function_of(function(timeoutSeconds=3, env=[{"name": "A", "value": "b"}]))
    record = manifests.controller_revision(then, 1, OWNER)
    now = function_of(function(image="registry.example/f:2", scaling={"maxScale": 3}))
    again = manifests.of_revision(now, record)
    assert manifests.digest(again.spec) == manifests.digest(then.spec)
    assert again.spec.scaling.max_scale == 3


def test_a_policy_lets_the_gateway_and_the_events_part_in() -> None:
    policy = manifests.network_policy(function_of(function()), OWNER, PLATFORM)
    [rule] = policy["spec"]["ingress"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    peers = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]]
    assert peers == ["gateway", "events"]
    assert {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]
    } == {"torpor"}


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"limits": {"cpu": "500m"}}, {"limits": {"cpu": "0.5"}}, True),
        ({"limits": {"cpu": "500m"}}, {"limits": {"cpu": "0.6"}}, False),
        ({"value": "500m"}, {"value": "0.5"}, False),
    ],
)
def test_covers(live: Any, wanted: Any, *, same: bool) -> None:
    assert manifests.covers(live, wanted) is same
