"""Every command on the cluster: through the API server's service proxy, with a user's own rights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.commands import Commands
from tests.cluster.platform import NAMESPACE, Platform, until
from tests.cluster.settings import ROOT
from torpor.api.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster.clusters import Cluster

GREETER = ROOT / "functions" / "greeter"
READS = frozenset(("get", "list", "watch"))
# What `torpor role api` may read.
READ = frozenset(
    (
        *("functions", "triggers", "schedules"),
        *("pods", "pods/log", "controllerrevisions", "services", "endpointslices"),
    )
)


@pytest.fixture(scope="session")
def torpor(platform: Platform, kubeconfig: Path) -> Commands:
    """The command line of the cluster's administrator."""
    return Commands(kubeconfig)


@pytest.fixture
def greeter(torpor: Commands, namespace: str, greeter_image: str) -> str:
    """The greeter, deployed; the namespace that it is in."""
    torpor.good("deploy", str(GREETER), "--image", f"greeter={greeter_image}", "-n", namespace)
    return namespace


def invoke(torpor: Commands, namespace: str) -> dict[str, Any]:
    answer: dict[str, Any] = torpor.good(
        "invoke", "greeter", "-n", namespace, "--path", "/?name=Ada"
    ).document
    return answer


def shown(torpor: Commands, namespace: str, name: str = "greeter") -> dict[str, Any]:
    function: dict[str, Any] = torpor.good("describe", name, "-n", namespace, "-o", "json").document
    return function


# --- deploying --------------------------------------------------------------------------------------------


def test_what_is_deployed_is_ready_and_answers(torpor: Commands, namespace: str, greeter_image: str) -> None:
    images = json.dumps([{"function": "default/greeter", "image": greeter_image}])
    deploy = ("deploy", str(GREETER), "--images", "-", "-n", namespace, "-o", "json")
    [checked] = torpor.good(*deploy, "--dry-run", text=images).document
    assert checked["action"] == "created"
    assert torpor.good("list", "-n", namespace, "-o", "json").document == []
    [made] = torpor.good(*deploy, text=images).document
    assert (made["action"], made["ready"], made["reason"]) == ("created", True, "AtRest")
    [again] = torpor.good(*deploy, text=images).document
    assert again["action"] == "unchanged"
    assert invoke(torpor, namespace)["greeting"] == "Hello, Ada!"
    [listed] = torpor.good("list", "-n", namespace, "-o", "json").document
    assert (listed["name"], listed["ready"], listed["image"]) == ("greeter", True, greeter_image)


def test_what_does_not_become_ready_is_said(torpor: Commands, namespace: str, tmp_path: Path) -> None:
    document = {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "absent", "namespace": namespace},
        "spec": {"image": "registry.invalid/absent:1", "scaling": {"minScale": 1}},
    }
    (tmp_path / "function.yaml").write_text(json.dumps(document))
    said = torpor.run("deploy", str(tmp_path))
    assert said.code == 1, said.out
    assert f"Function {namespace}/absent is not ready: absent-00001: the image" in said.err
    assert not shown(torpor, namespace, "absent")["ready"]


def test_what_the_cluster_refuses_is_said_before_anything_is_changed(
    torpor: Commands, greeter_image: str
) -> None:
    said = torpor.run(
        "deploy", str(GREETER), "--image", f"greeter={greeter_image}", "-n", "no-such-namespace"
    )
    assert said.code == 1
    assert 'namespaces "no-such-namespace" not found' in said.err


# --- reading ----------------------------------------------------------------------------------------------


def test_a_function_is_described_with_its_pods_and_requests(
    torpor: Commands, cluster: Cluster, greeter: str
) -> None:
    awake = {"spec": {"scaling": {"minScale": 1}}}  # it may rest again before anybody looks
    patch = ("patch", "function", "greeter", "--type=merge", f"--patch={json.dumps(awake)}", "-n", greeter)
    cluster.kubectl(*patch)
    invoke(torpor, greeter)

    def counted() -> bool:  # an instance serves a moment before its pod says so, hence "starting"
        function = shown(torpor, greeter)
        return bool(
            function["requests"] >= 1
            and [instance["state"] for instance in function["instances"]] == ["ready"]
        )

    until(counted, "a request that was counted, and an instance that is ready")
    function = shown(torpor, greeter)
    [instance] = function["instances"]
    assert instance["revision"] == function["revision"] == "greeter-00001"
    text = torpor.good("describe", "greeter", "-n", greeter).out
    assert instance["id"] in text
    assert "1 to 4 for 12 concurrency each" in text


def test_logs_are_followed_over_pods_that_come_and_go(
    torpor: Commands, platform: Platform, greeter: str
) -> None:
    with torpor.following("logs", "-f", "greeter", "-n", greeter, "-o", "json") as logs:
        invoke(torpor, greeter)
        until(lambda: bool(logs.lines), "a line of the first pod")
        first = json.loads(logs.lines[0])
        assert "Serving" in first["text"]
        platform.cluster.kubectl("delete", "pod", first["instance"], "--namespace", greeter)
        invoke(torpor, greeter)
        until(
            lambda: len({json.loads(line)["instance"] for line in logs.lines}) > 1, "a line of a second pod"
        )
        assert logs.end() == 0
    tail = torpor.good("logs", "greeter", "-n", greeter, "--tail", "1", "-o", "json").out.splitlines()
    assert len(tail) == 1


def test_events_are_sent_watched_and_counted(torpor: Commands, greeter: str) -> None:
    with torpor.following(
        "events", "tail", "-n", "default", "-o", "json", "--filter", f"source=/{greeter}"
    ) as tail:

        def sent() -> bool:
            torpor.good("events", "send", "a.b", "--source", f"/{greeter}", "--data", '{"n": 1}')
            return bool(tail.lines)

        until(sent, "an event that was watched")
        assert json.loads(tail.lines[0])["data"] == {"n": 1}
        assert tail.end() == 0
    brokers = torpor.good("list", "brokers", "-o", "json").document
    published = {f"{one['namespace']}/{one['name']}": one["published"] for one in brokers}
    assert published["default/default"] >= 1


def test_triggers_are_listed_with_their_counters(torpor: Commands, greeter: str, tmp_path: Path) -> None:
    document = {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": "greetings", "namespace": greeter},
        "spec": {"subscriber": {"function": "greeter"}, "delivery": {"retry": 0}},
    }
    (tmp_path / "trigger.yaml").write_text(json.dumps(document))
    torpor.good("deploy", str(tmp_path / "trigger.yaml"))

    def at_work() -> bool:
        [trigger] = torpor.good("list", "triggers", "-n", greeter, "-o", "json").document
        return bool(trigger["ready"])

    until(at_work, "a trigger at work")
    torpor.good("events", "send", "a.b", "-n", greeter)

    def counted() -> bool:
        [trigger] = torpor.good("list", "triggers", "-n", greeter, "-o", "json").document
        # The greeter takes no POST: what comes to it is a dead letter.
        return bool(trigger["deadLettered"] == 1 and trigger["pending"] == 0)

    until(counted, "a dead letter that was counted")


def test_events_are_replayed_to_a_function_by_name_and_explained_with_its_pod(
    torpor: Commands, greeter: str, tmp_path: Path
) -> None:
    document = {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": "others", "namespace": greeter},
        "spec": {"filters": [{"exact": {"type": "another"}}], "subscriber": {"function": "greeter"}},
    }
    (tmp_path / "trigger.yaml").write_text(json.dumps(document))
    torpor.good("deploy", str(tmp_path / "trigger.yaml"))
    send = ("events", "send", "a.b", "--id", "replayed", "--broker", f"default.{greeter}")
    until(lambda: torpor.run(*send).code == 0, "an event that no trigger matches")
    replay = ("events", "replay", "--from", "-1h", "-n", greeter, "--to-function")
    refused = torpor.run(*replay, "greeter@greeter-00009")
    assert refused.code == 1
    assert "'greeter-00001', which serves, was expected, not 'greeter-00009'" in refused.err
    assert torpor.good(*replay, "greeter@greeter-00001").out == "Replayed 1 event.\n"
    explain = ("explain", "replayed", "--broker", f"default.{greeter}", "-o", "json")

    def steps() -> list[dict[str, Any]]:
        [one] = torpor.good(*explain).document["items"]
        found: list[dict[str, Any]] = one["steps"]
        return found

    # The greeter takes no POST: what comes to it is a dead letter.
    until(lambda: steps()[-1]["what"] == "dead letter", "a dead letter of what the function was sent")
    _, replayed, attempt, dead = steps()
    assert (
        replayed["text"]
        == f"written as a replay for function {greeter}/greeter, revision greeter-00001 alone"
    )
    assert {one["trigger"] for one in (replayed, attempt, dead)} == {f"{greeter}/function:greeter"}
    assert attempt["status"] == 405
    assert attempt["instance"].startswith("greeter-00001-")
    listed = torpor.good("dead-letters", "list", "--broker", f"default.{greeter}", "-o", "json")
    [letter] = listed.document
    assert letter["trigger"] == f"{greeter}/function:greeter"


def test_the_doctor_finds_the_platform_well(torpor: Commands, platform: Platform) -> None:
    found: list[dict[str, str]] = []

    def well() -> bool:
        said = torpor.run("doctor", "-o", "json")
        found[:] = said.document
        return said.code == 0

    until(well, "a platform that is well")
    seen = {one["subject"] for one in found if one["outcome"] == "ok"}
    for component in ("api", "controller", "gateway", "events"):
        assert {pod["metadata"]["name"] for pod in platform.parts(component)} <= seen


def test_blobs_go_through_the_proxy(
    torpor: Commands, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    content = bytes(range(256)) * 20_000
    with Client("kube:") as client:
        stored = client.put_blob(content, "application/octet-stream")
        assert stored.dataref == f"http://torpor-api.{NAMESPACE}.svc:8082/blobs/{stored.name}"
        assert client.get_blob(stored.name) == content


# --- rights -----------------------------------------------------------------------------------------------


def test_a_platform_that_is_not_there_is_said_to_be_not_there(torpor: Commands, kubeconfig: Path) -> None:
    said = Commands(kubeconfig, "kube:/default").run("list")
    assert said.code == 1
    assert "there is no platform in namespace 'default'" in said.err


@pytest.fixture
def account(cluster: Cluster, namespace: str, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Commands]:
    """Makes the command line of an account that has the given rights at the platform."""

    def make(rules: list[dict[str, Any]]) -> Commands:
        name = {"name": f"reader-{namespace}"}
        group = "rbac.authorization.k8s.io"
        subject = {"kind": "ServiceAccount", "name": "somebody", "namespace": namespace}
        role = {"apiGroup": group, "kind": "Role", **name}
        cluster.apply(
            [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "somebody"}}], namespace
        )
        objects = [
            {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": name, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": name,
                "roleRef": role,
                "subjects": [subject],
            },
        ]
        cluster.apply(objects, NAMESPACE)
        token = cluster.kubectl("create", "token", "somebody", "--namespace", namespace).strip()
        config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--output=json"))
        config["users"] = [{"name": "somebody", "user": {"token": token}}]
        config["contexts"][0]["context"]["user"] = "somebody"
        path = tmp_path / "somebody.kubeconfig"
        path.write_text(json.dumps(config))
        return Commands(path)

    return make


READER = {
    "apiGroups": [""],
    "resources": ["services/proxy"],
    "resourceNames": ["http:torpor-api:80"],
    "verbs": ["get"],
}


def test_kubernetes_decides_who_may_do_what(
    account: Callable[[list[dict[str, Any]]], Commands], greeter: str, greeter_image: str
) -> None:
    reader = account([READER])
    [listed] = reader.good("list", "-n", greeter, "-o", "json").document
    assert listed["name"] == "greeter"
    said = reader.run("invoke", "greeter", "-n", greeter)
    assert said.code == 1
    assert (
        "you need the right to get 'services/proxy' of 'http:torpor-gateway:80' in namespace 'torpor'"
        in said.err
    )
    said = reader.run("deploy", str(GREETER), "--image", f"greeter={greeter_image}", "-n", greeter)
    assert said.code == 1
    assert "cannot get resource" in said.err


def test_who_has_no_rights_is_told_which(
    account: Callable[[list[dict[str, Any]]], Commands], platform: Platform
) -> None:
    nobody = account([])
    for arguments in (["list"], ["events", "tail"], ["logs", "x"]):
        said = nobody.run(*arguments)
        assert said.code == 1
        assert "you need the right to get 'services/proxy' of 'http:torpor-api:80'" in said.err


def rights(platform: Platform, account: str, where: str) -> set[tuple[str, str]]:
    """What an account may do in a namespace: resources and verbs."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": where},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    create = ("create", "--raw", path, "--filename=-", f"--as=system:serviceaccount:{account}")
    status = json.loads(platform.cluster.kubectl(*create, text=json.dumps(review)))["status"]
    assert not status["incomplete"]
    return {
        (resource, verb)
        for rule in status["resourceRules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("where", [NAMESPACE, "default", "kube-system"])
def test_the_api_s_account_may_read_and_do_nothing_else(platform: Platform, where: str) -> None:
    everybody = rights(platform, "default:default", where)
    own = rights(platform, f"{NAMESPACE}:torpor-api", where) - everybody
    assert {verb for _, verb in own} <= READS
    assert {resource for resource, _ in own} <= READ
    assert {"functions", "triggers", "schedules", "pods", "pods/log"} <= {resource for resource, _ in own}
