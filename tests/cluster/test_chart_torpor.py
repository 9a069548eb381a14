"""The platform's chart: what each of its values changes, and that wrong ones are refused in words."""

from __future__ import annotations

import base64
import itertools
import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from ruamel.yaml import YAML

from tests.cluster.charts import KUBERNETES, NAMESPACE, TORPOR, Rendered, helm, refusal, render
from tests.cluster.settings import ROOT, ClusterError
from torpor import settings
from torpor.cluster import names
from torpor.spec.documents import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS = ("controller", "gateway", "events", "api")
ALL_ON: dict[str, Any] = {
    "crds": {"install": True},
    "nats": {"replicas": 3},
    "ingress": {"enabled": True, "className": "traefik", "hosts": ["fn.example.com"]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    "api": {"replicas": 2},
}
SELECTORS: dict[str, Callable[[dict[str, Any]], dict[str, str]]] = {
    "Service": lambda spec: spec["selector"],
    "Deployment": lambda spec: spec["selector"]["matchLabels"],
    "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
    "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
    "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
}
SWITCHES = [{}, ALL_ON, {"nats": {"storage": {"persistent": False}}}]


def test_lint() -> None:
    helm("lint", "--strict", *KUBERNETES, TORPOR)


def test_what_there_is_by_default() -> None:
    found: dict[str, set[str]] = {}
    for one in Rendered().objects:
        found.setdefault(one["kind"], set()).add(one["metadata"]["name"].removeprefix("torpor-"))
    parts = set(PARTS)
    assert found == {
        "Deployment": parts,
        "StatefulSet": {"nats"},
        "ServiceAccount": parts,
        "ClusterRole": parts | {"functions-view", "functions-edit"},
        "ClusterRoleBinding": parts,
        "Role": {"controller", "events"},
        "Lease": {"controller", "events"},
        "RoleBinding": {"controller", "events"},
        "Service": {"gateway", "gateway-internal", "events", "api", "nats", "nats-servers"},
        "NetworkPolicy": parts | {"nats"},
        "PodDisruptionBudget": {"controller", "gateway", "events"},
        "Secret": {"nats"},
        "ConfigMap": {"nats"},
        "ValidatingAdmissionPolicy": {"filters.torpor.dev", "schedules.torpor.dev"},
        "ValidatingAdmissionPolicyBinding": {"filters.torpor.dev", "schedules.torpor.dev"},
    }


def test_nothing_is_outside_of_the_release() -> None:
    for one in Rendered(ALL_ON).objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        cluster_wide = one["kind"].startswith(("Cluster", "Custom", "Validating"))
        assert one["metadata"].get("namespace") == (None if cluster_wide else NAMESPACE)


@pytest.mark.parametrize("values", SWITCHES)
def test_every_pod_keeps_the_restricted_profile_and_more(values: dict[str, Any]) -> None:
    for component, _, pod in Rendered(values).pods():
        assert pod["securityContext"] == {
            **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 65532),
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert not pod["enableServiceLinks"]
        assert pod["automountServiceAccountToken"] == (component != "nats")
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        mounts = {one["mountPath"] for one in container["volumeMounts"]}
        assert ("/data" if component == "nats" else "/tmp") in mounts


@pytest.mark.parametrize("values", SWITCHES)
def test_selectors_find_the_pods_that_they_mean(values: dict[str, Any]) -> None:
    chart = Rendered(values)
    labels = {component: metadata["labels"] for component, metadata, _ in chart.pods()}
    for one in chart.objects:
        spec, of_pods = one.get("spec", {}), SELECTORS.get(one["kind"])
        selector = of_pods(spec) if of_pods else None
        if selector is not None:
            own = one["metadata"]["labels"]["app.kubernetes.io/component"]
            chosen = {name for name, has in labels.items() if selector.items() <= has.items()}
            assert chosen == {own}, one["metadata"]["name"]


def test_services_are_where_the_parts_look_for_them() -> None:
    chart = Rendered()
    ports = {
        one["metadata"]["name"]: {port["name"]: port["port"] for port in one["spec"]["ports"]}
        for one in chart.of("Service")
    }
    assert ports[names.GATEWAY] == {"http": 80}
    assert ports[names.GATEWAY_INTERNAL] == {"internal": names.INTERNAL_PORT}
    assert ports[names.EVENTS] == {"http": 80}
    assert ports[names.API] == {"http": 80, "blobs": names.INTERNAL_PORT}
    own = {"http": names.HTTP_PORT, "agent": names.AGENT_PORT}
    for part in PARTS:
        [container] = chart.pod(part)["containers"]
        open_ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert open_ports.items() >= {("agent", names.AGENT_PORT)}
        expected = {**own, "internal": names.INTERNAL_PORT, "blobs": names.INTERNAL_PORT}
        assert open_ports.items() <= expected.items()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_given_settings_that_it_reads(part: str) -> None:
    model = getattr(settings, f"{part.capitalize()}Settings")
    known = {field.alias for field in model.model_fields.values()}
    given = Rendered().environment(part)
    assert given.keys() <= known
    plain = {name: value for name, value in given.items() if isinstance(value, str)}
    model.from_environment(plain)


def test_a_function_is_told_where_blobs_are() -> None:
    assert (
        Rendered().environment("controller")["TORPOR_BLOBS_URL"] == "http://torpor-api.torpor.svc:8082/blobs"
    )


# --- where callers come from -------------------------------------------------------------------------------

INGRESS = {"ingress": {"enabled": True, "hosts": ["*.fn.example.com", "fn.example.com"]}}
ROUTE = {
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "web"}],
        "hostnames": ["api.example.com"],
    }
}


@pytest.mark.parametrize(
    ("values", "url", "domain"),
    [
        ({}, "http://torpor-gateway.torpor.svc", "torpor-gateway.torpor.svc"),
        (INGRESS, "http://fn.example.com", "fn.example.com"),
        (
            {"ingress": {**INGRESS["ingress"], "tls": [{"secretName": "s"}]}},
            "https://fn.example.com",
            "fn.example.com",
        ),
        (ROUTE, "http://api.example.com", "api.example.com"),
        ({**INGRESS, **ROUTE}, "http://fn.example.com", "fn.example.com"),
        ({"ingress": {"enabled": True}}, "http://torpor-gateway.torpor.svc", "torpor-gateway.torpor.svc"),
        (
            {**INGRESS, "url": "https://own.example.com:8443/"},
            "https://own.example.com:8443",
            "own.example.com",
        ),
        ({"domain": "fn.internal"}, "http://torpor-gateway.torpor.svc", "fn.internal"),
    ],
)
def test_url_and_domain(values: dict[str, Any], url: str, domain: str) -> None:
    chart = Rendered(values)
    assert chart.environment("controller")["TORPOR_URL"] == url
    assert chart.environment("api")["TORPOR_URL"] == url
    assert chart.environment("gateway")["TORPOR_DOMAIN"] == domain


def test_ingress() -> None:
    ingress = {
        **INGRESS["ingress"],
        "className": "traefik",
        "annotations": {"a/b": "c"},
        "tls": [{"secretName": "s", "hosts": ["fn.example.com"]}],
    }
    found = Rendered({"ingress": ingress})("Ingress", "torpor-gateway")
    assert found["metadata"]["annotations"] == {"a/b": "c"}
    assert found["spec"]["ingressClassName"] == "traefik"
    assert found["spec"]["tls"] == ingress["tls"]
    assert [rule["host"] for rule in found["spec"]["rules"]] == ingress["hosts"]
    for rule in found["spec"]["rules"]:
        [path] = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": names.GATEWAY, "port": {"name": "http"}}
        assert (path["path"], path["pathType"]) == ("/", "Prefix")


def test_an_ingress_without_hosts_takes_every_host() -> None:
    spec = Rendered({"ingress": {"enabled": True}})("Ingress", "torpor-gateway")["spec"]
    assert [rule.keys() for rule in spec["rules"]] == [{"http"}]
    assert not spec.keys() & {"ingressClassName", "tls"}


def test_http_route() -> None:
    spec = Rendered(ROUTE)("HTTPRoute", "torpor-gateway")["spec"]
    assert spec == {
        "parentRefs": ROUTE["httpRoute"]["parentRefs"],
        "hostnames": ["api.example.com"],
        "rules": [{"backendRefs": [{"name": names.GATEWAY, "port": 80}]}],
    }


def test_service_of_the_gateway() -> None:
    service = {"type": "NodePort", "nodePort": 30080, "annotations": {"a": "b"}}
    found = Rendered({"gateway": {"service": service}})("Service", "torpor-gateway")
    assert found["spec"]["type"] == "NodePort"
    assert found["spec"]["ports"][0]["nodePort"] == 30080
    assert found["metadata"]["annotations"] == {"a": "b"}
    plain = Rendered()("Service", "torpor-gateway")
    assert plain["spec"]["type"] == "ClusterIP"
    assert "nodePort" not in plain["spec"]["ports"][0]


# --- definitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_definitions_are_the_generated_ones(keep: bool) -> None:
    chart = Rendered({"crds": {"install": True, "keep": keep}})
    for path in sorted((ROOT / "k8s" / "crds").glob("*.yaml")):
        [document] = parse(path.read_bytes())[0]
        found = chart("CustomResourceDefinition", document.value["metadata"]["name"])
        assert found["spec"] == document.value["spec"]
        kept = found["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
        assert kept == ("keep" if keep else None)


def test_definitions_are_left_to_others() -> None:
    assert Rendered({"crds": {"install": False}}).of("CustomResourceDefinition") == []


def test_policies_are_the_generated_ones() -> None:
    documents, _ = parse((ROOT / "k8s" / "policies" / "filters.yaml").read_bytes())
    for document in documents:
        found = Rendered()(document.value["kind"], document.value["metadata"]["name"])
        assert found["spec"] == document.value["spec"]


# --- NATS --------------------------------------------------------------------------------------------------


def test_one_nats_of_its_own() -> None:
    chart = Rendered()
    for part, name in (("events", "TORPOR_BROKER_URL"), ("api", "TORPOR_BLOBS_STORE")):
        environment = chart.environment(part)
        assert environment[name] == "nats://torpor-nats.torpor.svc:4222"
        assert environment["TORPOR_NATS_TOKEN"] == {"secretKeyRef": {"name": "torpor-nats", "key": "token"}}
    spec = chart("StatefulSet", "torpor-nats")["spec"]
    assert spec["replicas"] == 1
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Retain"}
    [claim] = spec["volumeClaimTemplates"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "10Gi"}},
    }
    config = chart("ConfigMap", "torpor-nats")["data"]["nats.conf"]
    assert "cluster" not in config
    assert "authorization { token: $NATS_TOKEN }" in config
    [container] = spec["template"]["spec"]["containers"]
    assert container["args"] == ["--config=/etc/nats/nats.conf", "--name=$(NATS_SERVER)"]


def test_three_servers_find_one_another() -> None:
    chart = Rendered({"nats": {"replicas": 3}})
    spec = chart("StatefulSet", "torpor-nats")["spec"]
    assert spec["replicas"] == 3
    [container] = spec["template"]["spec"]["containers"]
    host = f"{{}}.{spec['serviceName']}.torpor.svc:6222"
    routes = [f"nats://routes:$(NATS_TOKEN)@{host.format(f'torpor-nats-{number}')}" for number in range(3)]
    assert container["args"][-1] == "--routes=" + ",".join(routes)
    assert "password: $NATS_TOKEN" in chart("ConfigMap", "torpor-nats")["data"]["nats.conf"]
    assert chart.has("PodDisruptionBudget", "torpor-nats")
    assert chart("Service", "torpor-nats-servers")["spec"]["publishNotReadyAddresses"]


def test_storage() -> None:
    storage = {"size": "50Gi", "className": "fast", "keep": True}
    spec = Rendered({"nats": {"storage": storage}})("StatefulSet", "torpor-nats")["spec"]
    [claim] = spec["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"] == {"requests": {"storage": "50Gi"}}
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


def test_storage_that_ends_with_the_pod() -> None:
    storage = {"persistent": False, "size": "1Gi"}
    spec = Rendered({"nats": {"storage": storage}})("StatefulSet", "torpor-nats")["spec"]
    assert not spec.keys() & {"volumeClaimTemplates", "persistentVolumeClaimRetentionPolicy"}
    assert {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}} in spec["template"]["spec"]["volumes"]


def test_a_token_of_ones_own() -> None:
    chart = Rendered({"nats": {"tokenSecret": {"name": "mine", "key": "pass"}}})
    assert chart.of("Secret") == []
    expected = {"secretKeyRef": {"name": "mine", "key": "pass"}}
    assert chart.environment("events")["TORPOR_NATS_TOKEN"] == expected
    assert chart.environment("nats")["NATS_TOKEN"] == expected


@pytest.mark.parametrize("secret", [True, False])
def test_an_external_nats(secret: bool) -> None:
    nats: dict[str, Any] = {"enabled": False, "url": "nats://nats.messaging.svc:4222"}
    if secret:
        nats["tokenSecret"] = {"name": "mine"}
    chart = Rendered({"nats": nats})
    assert [one["metadata"]["name"] for one in chart.objects if "nats" in one["metadata"]["name"]] == []
    for part, name in (("events", "TORPOR_BROKER_URL"), ("api", "TORPOR_BLOBS_STORE")):
        assert chart.environment(part)[name] == nats["url"]
        assert ("TORPOR_NATS_TOKEN" in chart.environment(part)) == secret


def test_networks_that_callbacks_may_not_reach() -> None:
    chart = Rendered({"events": {"callbacksRefused": ["10.96.0.1/32", "fe80::/10"]}})
    assert chart.environment("events")["TORPOR_CALLBACKS_REFUSED"] == "10.96.0.1/32,fe80::/10"
    assert "TORPOR_CALLBACKS_REFUSED" not in Rendered().environment("events")


def test_events_in_a_kafka() -> None:
    kafka: dict[str, Any] = {"bootstrapServers": "a:9092,b:9092", "optionsSecret": {"name": "mine"}}
    chart = Rendered({"nats": {"enabled": False}, "kafka": kafka, "blobs": {"url": "s3://events/blobs"}})
    assert [one["metadata"]["name"] for one in chart.objects if "nats" in one["metadata"]["name"]] == []
    environment = chart.environment("events")
    assert environment["TORPOR_BROKER_URL"] == "kafka://a:9092,b:9092/torpor"
    assert environment["TORPOR_KAFKA_OPTIONS"] == "/etc/torpor/kafka/kafka.properties"
    for part in ("events", "api"):
        assert chart.environment(part)["TORPOR_BLOBS_STORE"] == "s3://events/blobs"
    assert "TORPOR_NATS_TOKEN" not in chart.environment("api")
    pod = chart.pod("events")
    assert {"name": "secret", "secret": {"secretName": "mine"}} in pod["volumes"]
    mount = {"name": "secret", "mountPath": "/etc/torpor/kafka", "readOnly": True}
    assert mount in pod["containers"][0]["volumeMounts"]
    assert "secret" not in {each["name"] for each in chart.pod("api")["volumes"]}


def test_a_kafka_without_a_place_for_blobs() -> None:
    chart = Rendered({"nats": {"enabled": False}, "kafka": {"bootstrapServers": "a:9092"}})
    assert "TORPOR_KAFKA_OPTIONS" not in chart.environment("events")
    for part in ("events", "controller", "api"):
        assert chart.environment(part)["TORPOR_BLOBS_URL"] == ""
    for part in ("events", "api"):
        assert chart.environment(part)["TORPOR_BLOBS_STORE"] == ""


# --- blobs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blobs", [{}, {"url": "gs://bucket/path"}])
def test_functions_find_blobs_by_the_api_wherever_they_are(blobs: dict[str, Any]) -> None:
    chart = Rendered({"blobs": blobs})
    for part in ("controller", "events", "api"):
        assert chart.environment(part)["TORPOR_BLOBS_URL"] == "http://torpor-api.torpor.svc:8082/blobs"


def test_where_blobs_are_kept_in_nats_both_parts_have_its_token() -> None:
    chart = Rendered({"nats": {"replicas": 3}})
    for part in ("events", "api"):
        environment = chart.environment(part)
        assert environment["TORPOR_BLOBS_STORE"] == "nats://torpor-nats.torpor.svc:4222"
        assert environment["TORPOR_NATS_TOKEN"] == {"secretKeyRef": {"name": "torpor-nats", "key": "token"}}
        assert environment["TORPOR_NATS_COPIES"] == "3"


def test_who_keeps_blobs_in_an_object_store_and_how_long() -> None:
    blobs = {
        "url": "s3://bucket/path",
        "ttlSeconds": 3600,
        "claimCheckBytes": 65536,
        "options": {"AWS_REGION": "eu-central-1", "AWS_ALLOW_HTTP": "true"},
        "secret": {"name": "keys"},
        "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/torpor"},
        "podLabels": {"azure.workload.identity/use": "true"},
    }
    chart = Rendered({"blobs": blobs})
    for part in PARTS:
        keeps = part in ("events", "api")
        [container] = chart.pod(part)["containers"]
        environment = chart.environment(part)
        assert (environment.get("AWS_REGION") == "eu-central-1") is keeps
        assert (container.get("envFrom") == [{"secretRef": {"name": "keys"}}]) is keeps
        account = chart("ServiceAccount", f"torpor-{part}")["metadata"]
        assert (account.get("annotations") == blobs["serviceAccountAnnotations"]) is keeps
        labels = chart("Deployment", f"torpor-{part}")["spec"]["template"]["metadata"]["labels"]
        assert (labels.get("azure.workload.identity/use") == "true") is keeps
        assert labels["app.kubernetes.io/component"] == part
    assert "TORPOR_NATS_TOKEN" not in chart.environment("api")
    assert chart.environment("events")["TORPOR_BLOBS_TTL_SECONDS"] == "3600"
    assert chart.environment("events")["TORPOR_CLAIM_CHECK_BYTES"] == "65536"


def test_by_default_no_pod_has_an_identity_elsewhere() -> None:
    chart = Rendered()
    for part in PARTS:
        assert "envFrom" not in chart.pod(part)["containers"][0]
        assert "annotations" not in chart("ServiceAccount", f"torpor-{part}")["metadata"]
    assert chart.environment("events")["TORPOR_BLOBS_TTL_SECONDS"] == "604800"


def test_the_token_begins_with_a_letter() -> None:
    token = base64.b64decode(Rendered()("Secret", "torpor-nats")["data"]["token"]).decode()
    assert re.fullmatch("t[A-Za-z0-9]{40}", token)


# --- who reaches whom --------------------------------------------------------------------------------------


def pods(component: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "torpor", "app.kubernetes.io/component": component}
    return {"podSelector": {"matchLabels": labels}}


FUNCTION_PODS = {
    "namespaceSelector": {},
    "podSelector": {"matchExpressions": [{"key": "torpor.dev/function", "operator": "Exists"}]},
}
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
BLOCK = {"ipBlock": {"cidr": "10.0.0.10/32"}}


def test_who_reaches_which_port() -> None:
    chart = Rendered()
    assert chart.peers("controller") == {"agent": [pods("api")]}
    assert chart.peers("gateway") == {
        "http": None,
        "internal": [pods("events")],
        "agent": [pods("controller"), pods("api")],
    }
    assert chart.peers("events") == {"http": [pods("gateway")], "agent": [pods("controller"), pods("api")]}
    assert chart.peers("api") == {"http": None, "blobs": [FUNCTION_PODS]}
    assert chart.peers("nats") == {"client": [pods("events"), pods("api")]}
    for policy in chart.of("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_metrics_are_for_those_who_are_named() -> None:
    chart = Rendered({"networkPolicy": {"metricsFrom": [PROMETHEUS]}})
    for part in PARTS:
        assert PROMETHEUS in (chart.peers(part)["agent"] or [])
    assert chart.peers("nats")["monitor"] == [PROMETHEUS]


def test_callers_can_be_restricted() -> None:
    policy = {"gatewayFrom": [PROMETHEUS], "apiFrom": [BLOCK]}
    chart = Rendered({"networkPolicy": policy})
    assert chart.peers("gateway")["http"] == [PROMETHEUS]
    assert chart.peers("api")["http"] == [BLOCK]
    public = Rendered({"networkPolicy": policy, "gateway": {"publicApi": True}})
    assert public.peers("api")["http"] == [BLOCK, pods("gateway")]
    assert public.environment("gateway")["TORPOR_PUBLIC_API"] == "true"


def test_servers_of_nats_reach_one_another_alone() -> None:
    assert Rendered({"nats": {"replicas": 3}}).peers("nats")["routes"] == [pods("nats")]


def test_no_policies() -> None:
    assert Rendered({"networkPolicy": {"enabled": False}}).of("NetworkPolicy") == []


# --- rights ------------------------------------------------------------------------------------------------


def rules(chart: Rendered) -> Iterator[tuple[str, str, str, str, bool]]:
    """Part, group, resource, verb and whether it is for named ones."""
    for role in (*chart.of("ClusterRole"), *chart.of("Role")):
        for rule in role["rules"]:
            for group, resource, verb in itertools.product(
                rule["apiGroups"], rule["resources"], rule["verbs"]
            ):
                yield role["metadata"]["name"], group, resource, verb, "resourceNames" in rule


def test_nobody_may_more_than_its_work() -> None:
    writes = {
        (part, resource)
        for part, _, resource, verb, _ in rules(Rendered())
        if verb not in ("get", "list", "watch") and "functions-" not in part
    }
    controlled = ("deployments", "controllerrevisions", "services", "serviceaccounts", "networkpolicies")
    status = ("functions/status", "triggers/status", "schedules/status", "functions/finalizers")
    pods = ("pods", "pods/resize", "events", "leases", "deployments/scale", "poddisruptionbudgets")
    assert writes == {
        *(("torpor-controller", name) for name in (*controlled, *status, *pods)),
        ("torpor-gateway", "deployments/scale"),
        ("torpor-events", "leases"),
    }
    for part, group, resource, verb, named in rules(Rendered()):
        assert "*" not in (group, resource, verb)
        assert resource not in ("secrets", "configmaps", "pods/exec", "roles", "rolebindings"), part
        if resource == "leases" and verb != "create":
            assert named


def test_roles_are_bound_to_the_accounts_of_pods() -> None:
    chart = Rendered()
    for binding in (*chart.of("ClusterRoleBinding"), *chart.of("RoleBinding")):
        [subject] = binding["subjects"]
        assert subject["name"] == binding["roleRef"]["name"] == binding["metadata"]["name"]
        assert subject["namespace"] == NAMESPACE
    for part in PARTS:
        assert chart.pod(part)["serviceAccountName"] == f"torpor-{part}"
        assert chart("ServiceAccount", f"torpor-{part}")["automountServiceAccountToken"] is False


def test_who_may_edit_a_namespace_may_edit_functions() -> None:
    role = Rendered()("ClusterRole", "torpor-functions-edit")
    labels = role["metadata"]["labels"]
    assert labels["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in labels


# --- pods --------------------------------------------------------------------------------------------------


def test_a_gateway_has_time_to_leave() -> None:
    chart = Rendered({"gateway": {"leaveSeconds": 20, "terminationGracePeriodSeconds": 400}})
    pod = chart.pod("gateway")
    assert pod["terminationGracePeriodSeconds"] == 400
    assert chart.environment("gateway")["TORPOR_LEAVE_SECONDS"] == "20"
    assert "lifecycle" not in pod["containers"][0]
    for part in ("events", "api"):
        assert "preStop" in chart.pod(part)["containers"][0]["lifecycle"]
    for one in chart.of("Deployment"):
        assert one["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_replicas_and_budgets() -> None:
    values = {"controller": {"replicas": 1}, "gateway": {"replicas": 5}, "api": {"replicas": 2}}
    chart = Rendered(values)
    assert chart("Deployment", "torpor-gateway")["spec"]["replicas"] == 5
    budgets = {one["metadata"]["name"] for one in chart.of("PodDisruptionBudget")}
    assert budgets == {"torpor-gateway", "torpor-events", "torpor-api"}
    for one in chart.of("PodDisruptionBudget"):
        assert one["spec"]["maxUnavailable"] == 1


def test_what_holds_for_every_pod() -> None:
    toleration = {"key": "infra", "operator": "Exists", "effect": "NoSchedule"}
    values = {
        "podAnnotations": {"prometheus.io/scrape": "true"},
        "nodeSelector": {"pool": "infra"},
        "tolerations": [toleration],
        "priorityClassName": "high",
        "image": {"repository": "r.example/t", "tag": "1", "pullPolicy": "Always", "pullSecrets": ["s"]},
    }
    for component, metadata, pod in Rendered(values).pods():
        assert metadata["annotations"]["prometheus.io/scrape"] == "true"
        assert pod["nodeSelector"] == {"pool": "infra"}
        assert pod["tolerations"] == [toleration]
        assert pod["priorityClassName"] == "high"
        assert pod["imagePullSecrets"] == [{"name": "s"}]
        [container] = pod["containers"]
        assert container["imagePullPolicy"] == "Always"
        assert container["image"] == (
            "docker.io/library/nats:2.15" if component == "nats" else "r.example/t:1"
        )
        [spread] = pod["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"].items() <= metadata["labels"].items()


def test_settings_of_parts() -> None:
    values = {
        "logLevel": "DEBUG",
        "controller": {"keptRevisions": 3},
        "gateway": {"workers": 4, "resources": {"limits": {"memory": "2Gi"}}},
    }
    chart = Rendered(values)
    assert {chart.environment(part)["TORPOR_LOG_LEVEL"] for part in PARTS} == {"DEBUG"}
    assert chart.environment("controller")["TORPOR_KEPT_REVISIONS"] == "3"
    assert chart.environment("gateway")["TORPOR_WORKERS"] == "4"
    assert chart.pod("gateway")["containers"][0]["resources"]["limits"] == {"memory": "2Gi"}


def test_traces() -> None:
    for part in PARTS:
        assert not any(name.startswith("OTEL") for name in Rendered().environment(part))
    values = {"tracing": {"endpoint": "http://otel.monitoring.svc:4318", "sampleRatio": 0.1}}
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.monitoring.svc:4318",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    for part in ("gateway", "controller"):
        environment = Rendered(values).environment(part)
        assert environment.items() >= told.items()
        model = getattr(settings, f"{part.capitalize()}Settings")
        plain = {name: value for name, value in environment.items() if isinstance(value, str)}
        assert model.from_environment(plain).traces() == told
    for part in ("events", "api"):  # they pass on what others begin
        assert not any(name.startswith("OTEL") for name in Rendered(values).environment(part))
    whole = Rendered({"tracing": {"endpoint": "http://otel:4318"}}).environment("gateway")
    assert whole["OTEL_TRACES_SAMPLER_ARG"] == "1"


def test_the_image_is_the_charts_version_by_default() -> None:
    assert Rendered().pod("api")["containers"][0]["image"] == "localhost/torpor:0.1.0"


# --- wrong values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"natss": {}}, "additional properties 'natss' not allowed"),
        ({"gateway": {"replica": 3}}, "at '/gateway': additional properties 'replica' not allowed"),
        ({"gateway": {"replicas": "two"}}, "at '/gateway/replicas': got string, want integer"),
        ({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum: got 0, want 1"),
        ({"nats": {"replicas": 2}}, "at '/nats/replicas': value must be one of 1, 3"),
        ({"nats": {"storage": {"size": "ten"}}}, "at '/nats/storage/size'"),
        ({"nats": {"url": "localhost:4222"}}, "at '/nats/url'"),
        ({"url": "fn.example.com"}, "at '/url'"),
        ({"tracing": {"endpoint": "otel:4317"}}, "at '/tracing/endpoint'"),
        ({"events": {"callbacksRefused": ["10.0.0.1"]}}, "at '/events/callbacksRefused/0'"),
        ({"tracing": {"sampleRatio": 10}}, "at '/tracing/sampleRatio': maximum: got 10, want 1"),
        ({"logLevel": "trace"}, "at '/logLevel': value must be one of"),
        ({"ingress": {"enabled": True, "hosts": ["https://a"]}}, "at '/ingress/hosts/0'"),
        ({"networkPolicy": {"metricsFrom": [{"pods": {}}]}}, "at '/networkPolicy/metricsFrom/0'"),
        ({"nats": {"enabled": False}}, "nats.url: is empty, the URL of your NATS was expected"),
        ({"kafka": {"bootstrapServers": "kafka"}}, "at '/kafka/bootstrapServers'"),
        (
            {"kafka": {"bootstrapServers": "a:9092"}},
            'kafka.bootstrapServers: is "a:9092", nothing was expected',
        ),
        (
            {"kafka": {"optionsSecret": {"name": "x"}}},
            'kafka.optionsSecret.name: is "x", nothing was expected',
        ),
        ({"blobs": {"url": "file:///tmp"}}, "at '/blobs/url'"),
        ({"blobs": {"url": "s3://"}}, "at '/blobs/url'"),
        ({"blobs": {"url": "s3://b", "options": {"PATH": "/tmp"}}}, "'PATH' does not match pattern"),
        ({"blobs": {"url": "s3://b", "options": {"AWS_ALLOW_HTTP": True}}}, "at '/blobs/options"),
        ({"blobs": {"ttlSeconds": -1}}, "at '/blobs/ttlSeconds': minimum: got -1, want 0"),
        ({"blobs": {"claimCheckBytes": 10}}, "at '/blobs/claimCheckBytes': minimum: got 10, want 1,024"),
        ({"blobs": {"secret": {"name": "keys"}}}, 'blobs.secret.name: is "keys", nothing was expected'),
        ({"blobs": {"options": {"AWS_REGION": "x"}}}, "blobs.options: is not empty, nothing was expected"),
        ({"nats": {"url": "nats://x:4222"}}, 'nats.url: is "nats://x:4222", nothing was expected'),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: is empty"),
        ({"gateway": {"service": {"nodePort": 30080}}}, "gateway.service.nodePort: is 30080, 0 was expected"),
        (
            {"gateway": {"leaveSeconds": 60, "terminationGracePeriodSeconds": 30}},
            "gateway.terminationGracePeriodSeconds: is 30, more than gateway.leaveSeconds (60) was expected",
        ),
    ],
)
def test_wrong_values_are_refused_in_words(values: dict[str, Any], said: str) -> None:
    assert said in refusal(TORPOR, values)


def test_an_old_kubernetes_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"incompatible with Kubernetes v1\.31\.0"):
        helm("template", "release", TORPOR, "--kube-version", "1.31.0")


def test_schema_and_values_have_the_same_fields() -> None:
    schema = orjson.loads((TORPOR / "values.schema.json").read_bytes())
    values = YAML(typ="safe").load((TORPOR / "values.yaml").read_text())

    def check(of_schema: dict[str, Any], of_values: dict[str, Any], path: str) -> None:
        assert of_schema["additionalProperties"] is False
        assert of_schema["properties"].keys() - {"global"} == of_values.keys(), path
        for name, value in of_values.items():
            inner = of_schema["properties"][name]
            if "properties" in inner:
                check(inner, value, f"{path}.{name}")

    check(schema, values, "")


def test_every_value_changes_something() -> None:
    text = "".join(path.read_text() for path in (TORPOR / "templates").iterdir())
    values = YAML(typ="safe").load((TORPOR / "values.yaml").read_text())
    for name, inner in values.items():
        assert f".Values.{name}" in text
        for key in inner if isinstance(inner, dict) else ():
            read = rf"({name}|values|policy|root\.Values\.{name})\.{key}\b"
            assert re.search(read, text), f"{name}.{key}"


def test_as_a_part_of_another_chart_it_takes_its_globals() -> None:
    assert render(TORPOR, {"global": {"any": 1}, "crds": {"install": False}})
