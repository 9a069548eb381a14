"""What should be in the cluster for a function: pure functions of what it declares.

Nothing here says how many instances there are: that is the autoscaler's, through the ``scale`` subresource.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from torpor.controller import names
from torpor.spec.models import Function, FunctionSpec
from torpor.spec.values import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.providers.kubernetes.resources import Object
    from torpor.spec.models import EnvVar

# From the moment a pod is to end until it gets SIGTERM: time for every gateway to have sent its requests
# elsewhere. Endpoints reach a gateway in milliseconds, and Envoy's workers take them in at once.
PRE_STOP_SECONDS = 5
# Beyond the longest call, so that its answer still leaves.
DRAIN_MARGIN_SECONDS = 1
KILL_MARGIN_SECONDS = 4
_REQUESTS = {"cpu": "50m", "memory": "64Mi"}
_MEMORY_LIMIT = "512Mi"
_START_SECONDS = 300
_REVISIONED = ("image", "env", "resources", "image_pull_secrets", "container_concurrency", "timeout_seconds")


@dataclass(frozen=True, slots=True)
class Platform:
    """What is the same for all functions of a cluster; ``url`` is where callers reach the gateway.

    ``traces`` are variables of OpenTelemetry's that functions get, but for those that they declare.
    """

    namespace: str
    url: str
    blobs_url: str = ""
    kept_revisions: int = 5
    traces: Mapping[str, str] = field(default_factory=dict)


def owner(item: Object) -> Object:
    """A reference to ``item`` as the owner: what has it goes with it."""
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "name": item["metadata"]["name"],
        "uid": item["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def revisioned(spec: FunctionSpec) -> dict[str, Any]:
    """The part of ``spec`` that makes a pod what it is; a change of it is another revision."""
    content = spec.model_dump(mode="json", include=set(_REVISIONED), exclude_none=True)
    return {**content, "http": {"maxBodyBytes": spec.http.max_body_bytes}}


def digest(spec: FunctionSpec) -> str:
    """A short hash over :func:`revisioned`."""
    content = orjson.dumps(revisioned(spec), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:10]


def controller_revision(function: Function, number: int, owned_by: Object) -> Object:
    """The record of a revision, which never changes."""
    name = names.revision(function.metadata.name, number)
    metadata = _metadata(function, name, owned_by, {names.REVISION: name, names.HASH: digest(function.spec)})
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": number,
        "data": {"spec": revisioned(function.spec)},
    }


def of_revision(function: Function, record: Object) -> Function:
    """``function`` as the ControllerRevision ``record`` has it: its pods of then, all else of now."""
    then = record["data"]["spec"]
    http = function.spec.model_dump(mode="json", include={"http"})["http"] | then["http"]
    fields = function.spec.model_dump(mode="json", exclude_none=True, exclude=set(_REVISIONED))
    document = function.model_dump(mode="json", exclude_none=True)
    return Function.model_validate({**document, "spec": {**fields, **then, "http": http}})


def deployment(function: Function, revision: str, owned_by: Object, platform: Platform) -> Object:
    """The Deployment of one revision, without a number of replicas."""
    labels = {names.FUNCTION: function.metadata.name, names.REVISION: revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(function, revision, owned_by, {names.REVISION: revision}),
        "spec": {
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {**labels, names.MANAGED: "torpor"}},
                "spec": _pod(function, revision, labels, platform),
            },
        },
    }


def _pod(function: Function, revision: str, labels: dict[str, str], platform: Platform) -> Object:
    spec = function.spec
    margins_seconds = PRE_STOP_SECONDS + DRAIN_MARGIN_SECONDS + KILL_MARGIN_SECONDS
    pod: Object = {
        "serviceAccountName": names.helper(function.metadata.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(spec.timeout_seconds) + margins_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "containers": [_container(function, revision, platform)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in spec.image_pull_secrets]
    return pod


def _container(function: Function, revision: str, platform: Platform) -> Object:
    # A connection is what the Knative runtime contract promises of a container that is ready; it may have no
    # route for health. Gateways ask sooner, and of every address, ready or not.
    probe = {"tcpSocket": {"port": "http"}}
    return {
        "name": names.CONTAINER,
        "image": function.spec.image,
        "ports": [{"name": "http", "containerPort": names.PORT, "protocol": "TCP"}],
        "env": _environment(function, revision, platform),
        "resources": resources(function.spec),
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": _START_SECONDS},
        "readinessProbe": {**probe, "periodSeconds": 5, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
    }


def resources(spec: FunctionSpec) -> Object:
    """What an instance asks for and gets at most, with the defaults that the reference names."""
    limits = spec.resources.limits.model_dump(exclude_none=True)
    asked = spec.resources.requests.model_dump(exclude_none=True)
    if "memory" not in limits:
        limits["memory"] = max(asked.get("memory", _MEMORY_LIMIT), _MEMORY_LIMIT, key=parse_quantity)
    given = spec.resources.limits.model_dump(exclude_none=True)
    requests = {name: asked.get(name) or given.get(name) or least for name, least in _REQUESTS.items()}
    return {"limits": limits, "requests": requests}


def _environment(function: Function, revision: str, platform: Platform) -> list[Object]:
    spec, metadata = function.spec, function.metadata
    ours = {
        "K_SERVICE": metadata.name,
        "K_REVISION": revision,
        "K_CONFIGURATION": metadata.name,
        "TORPOR_NAMESPACE": metadata.namespace,
        "TORPOR_CONTAINER_CONCURRENCY": str(spec.container_concurrency),
        "TORPOR_TIMEOUT_SECONDS": f"{spec.timeout_seconds:g}",
        "TORPOR_DRAIN_SECONDS": f"{spec.timeout_seconds + DRAIN_MARGIN_SECONDS:g}",
        "TORPOR_MAX_BODY_BYTES": str(spec.http.max_body_bytes),
        "TORPOR_BLOBS_URL": platform.blobs_url,
    }
    own = {"fieldRef": {"fieldPath": "metadata.name"}}
    declared = {one.name for one in spec.env}
    return [
        {"name": "PORT", "value": str(names.PORT)},
        *({"name": name, "value": value} for name, value in platform.traces.items() if name not in declared),
        *(_variable(one) for one in spec.env),
        *({"name": name, "value": value} for name, value in ours.items() if value),
        {"name": "TORPOR_INSTANCE", "valueFrom": own},
    ]


def _variable(variable: EnvVar) -> Object:
    return variable.model_dump(mode="json", exclude_none=True)


def service(function: Function, revision: str, owned_by: Object) -> Object:
    """The headless Service whose EndpointSlices gateways read: the pods of the revision that serves.

    Addresses are published before the kubelet finds the pods ready, since gateways find it out sooner.
    """
    labels = {names.FUNCTION: function.metadata.name, names.REVISION: revision}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(function, names.helper(function.metadata.name), owned_by),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": "http", "port": names.PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def service_account(function: Function, owned_by: Object) -> Object:
    """An identity of its own, that can do nothing at the API server."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(function, names.helper(function.metadata.name), owned_by),
        "automountServiceAccountToken": False,
    }


def network_policy(function: Function, owned_by: Object, platform: Platform) -> Object:
    """Lets in the gateway and the events part, and nobody else."""
    peers = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": platform.namespace}},
            "podSelector": {"matchLabels": {names.PART_OF: "torpor", names.COMPONENT: component}},
        }
        for component in ("gateway", "events")
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(function, names.helper(function.metadata.name), owned_by),
        "spec": {
            "podSelector": {"matchLabels": {names.FUNCTION: function.metadata.name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": peers, "ports": [{"port": names.PORT, "protocol": "TCP"}]}],
        },
    }


def disruption_budget(function: Function, owned_by: Object) -> Object | None:
    """One pod at a time may be evicted where there are always several; else a node could not be drained."""
    if function.spec.scaling.min_scale < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(function, names.helper(function.metadata.name), owned_by),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {names.FUNCTION: function.metadata.name}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def covers(live: Any, wanted: Any, *, amounts: bool = False) -> bool:
    """Whether ``live`` has all that ``wanted`` says; lists have to have the same entries, in order.

    What is in ``limits`` and ``requests`` are ``amounts``, which the API server writes in its own way.
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            name in live and covers(live[name], value, amounts=amounts or name in ("limits", "requests"))
            for name, value in wanted.items()
        )
    if amounts:
        return parse_quantity(live) == parse_quantity(wanted)
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(covers(there, one) for there, one in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def _metadata(
    function: Function, name: str, owned_by: Object, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": function.metadata.namespace,
        "labels": {
            names.FUNCTION: function.metadata.name,
            names.MANAGED: "torpor",
            names.PART_OF: "torpor-functions",
            **(labels or {}),
        },
        "ownerReferences": [owner(owned_by)],
    }
