"""From an empty cluster to functions that answer through an ingress controller, and back to an empty one."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests, shell, traefik
from tests.cluster.charts import FUNCTIONS, TORPOR, Rendered
from tests.cluster.platform import GATEWAY, NAMESPACE, Platform, is_ready, until
from tests.cluster.settings import ClusterError, Settings
from tests.cluster.test_chart_torpor import ALL_ON
from tests.cluster.traffic import traffic
from torpor.api.client import Client
from torpor.api.places import find as find_place
from torpor.binding import WireEvent
from torpor.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clusters import Cluster

DEFINITIONS = {"functions.torpor.dev", "triggers.torpor.dev", "schedules.torpor.dev"}
CONNECTIONS = 16
GREETED = "/function/greeter.{}/?name=Ada"
# What comes and goes by itself, and what says only who did what.
PASSING = ("events", "events.events.k8s.io", "componentstatuses")
ASK = """
import sys, urllib.request
for host in sys.argv[2:]:
    print(host, urllib.request.urlopen(f"http://{host}{sys.argv[1]}", timeout=60).read().decode())
"""
ENTRIES = {
    "ingress": {"enabled": True, "className": traefik.CLASS, "hosts": [traefik.BY_INGRESS]},
    "httpRoute": {"enabled": True, "parentRefs": [traefik.GATEWAY], "hostnames": [traefik.BY_ROUTE]},
}


class Empty:
    """A cluster without Torpor, in which a test installs it."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        self.cluster = cluster
        self.platform = Platform(cluster)
        repository, _, tag = image.rpartition(":")
        self._image = {"repository": repository, "tag": tag}

    def install(self, *options: str, **values: Any) -> None:
        """Install it, or upgrade it to these values, as a person does."""
        verb = ("upgrade", "--install", "torpor", str(TORPOR), "--namespace", NAMESPACE)
        self._helm(*verb, "--wait", "--timeout=300s", *options, values={"image": self._image, **values})

    def deploy(self, namespace: str, image: str, **spec: Any) -> None:
        """Install the functions' chart with the greeter, and wait until it is ready."""
        values = {"functions": {"greeter": {"image": image, **spec}}}
        verb = ("upgrade", "--install", "my-functions", str(FUNCTIONS), "--namespace", namespace)
        self._helm(*verb, values=values)
        where = ("--namespace", namespace, "--timeout=120s")
        self.cluster.kubectl("wait", "--for=condition=Ready", "function/greeter", *where)

    def _helm(self, *arguments: str, values: dict[str, Any]) -> None:
        config = ("--kubeconfig", self.cluster.kubeconfig)
        helm = self.cluster.tool("helm")
        shell.run(helm, *config, *arguments, "--values=-", text=json.dumps(values), timeout_seconds=400)

    def ask(self, namespace: str, image: str, path: str, *hosts: str) -> dict[str, str]:
        """What each host answers to a pod."""
        self.cluster.apply([manifests.client(image, ASK, path, *hosts)], namespace)
        where = ("--namespace", namespace)
        done = "--for=jsonpath={.status.phase}=Succeeded"
        try:
            self.cluster.kubectl("wait", done, "pod/client", "--timeout=120s", *where)
        finally:
            said = self.cluster.kubectl("logs", "client", *where)
            print(f"\n{said.strip()}")
            self.cluster.kubectl("delete", "pod/client", "--grace-period=1", *where)
        return dict(line.split(" ", 1) for line in said.strip().splitlines())

    def objects(self) -> set[str]:
        """Everything that the cluster has, by kind, namespace and name."""
        listed = self.cluster.kubectl("api-resources", "--verbs=list", "--output=name").split()
        kinds = ",".join(sorted(kind for kind in listed if kind not in PASSING))
        columns = "K:.kind,S:.metadata.namespace,N:.metadata.name"
        text = self.cluster.kubectl(
            *("get", kinds, "--all-namespaces", "--no-headers", "--ignore-not-found"),
            *("--output", f"custom-columns={columns}"),
        )
        found = {" ".join(line.split()) for line in text.splitlines()}
        return {one for one in found if not one.startswith(("Lease kube-", "PodMetrics", "NodeMetrics"))}

    def clear(self) -> None:
        """Take away whatever there is of it."""
        for release, namespace in self._releases():
            self.platform.helm("uninstall", release, "--namespace", namespace, "--wait")
        # A namespace with pods that end is looked at again only after half of what they may take at most.
        pods = ("pods", "--all", "--namespace", NAMESPACE)
        self.cluster.kubectl("wait", "--for=delete", *pods, "--timeout=120s")
        self.cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
        self.cluster.kubectl("delete", "crd", "--ignore-not-found", *sorted(DEFINITIONS), timeout_seconds=120)

    def _releases(self) -> list[tuple[str, str]]:
        listed = json.loads(self.platform.helm("list", "--all-namespaces", "--all", "--output=json"))
        # Functions before the platform that ends them.
        return sorted((one["name"], one["namespace"]) for one in listed)


@contextmanager
def put_aside(cluster: Cluster) -> Iterator[None]:
    """A platform that other tests use is taken away for the time of the block, and put back as it was."""
    platform = Platform(cluster)
    there = json.loads(platform.helm("list", "--namespace", NAMESPACE, "--output=json"))
    values = (
        platform.helm("get", "values", "torpor", "--namespace", NAMESPACE, "--output=json") if there else ""
    )
    yield
    if there:
        verb = ("upgrade", "--install", "torpor", str(TORPOR), "--namespace", NAMESPACE)
        config = ("--kubeconfig", cluster.kubeconfig)
        options = ("--create-namespace", "--wait", "--values=-")
        shell.run(cluster.tool("helm"), *config, *verb, *options, text=values, timeout_seconds=400)


@pytest.fixture(scope="module")
def ingress_controller(cluster: Cluster) -> Iterator[None]:
    traefik.install(cluster, Settings.from_environment())
    yield
    traefik.uninstall(cluster)


@pytest.fixture
def empty(cluster: Cluster, platform_image: str, nats_image: str) -> Iterator[Empty]:
    with put_aside(cluster):
        found = Empty(cluster, platform_image)
        found.clear()
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        document = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": labels},
        }
        cluster.kubectl("create", "--filename=-", text=json.dumps(document))
        try:
            yield found
        finally:
            found.clear()


@pytest.mark.parametrize("values", [{}, ALL_ON, {"nats": {"storage": {"persistent": False}}}])
@pytest.mark.usefixtures("ingress_controller")
def test_the_api_server_takes_every_object(cluster: Cluster, namespace: str, values: dict[str, Any]) -> None:
    """By its own schema, with no field that it does not know."""
    objects = Rendered(values | {"crds": {"install": True}}).objects
    for one in objects:
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = namespace
    options = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("apply", *options, "--filename=-", text=text)


def test_two_commands_from_nothing_to_an_answer_and_two_back(
    empty: Empty, namespace: str, greeter_image: str, ingress_controller: None
) -> None:
    before = empty.objects()
    began = time.monotonic()
    empty.install(**ENTRIES)
    installed = time.monotonic()
    empty.deploy(namespace, greeter_image)
    path = GREETED.format(namespace)
    said = empty.ask(namespace, greeter_image, path, traefik.BY_INGRESS, traefik.BY_ROUTE, GATEWAY)
    print(f"installed after {installed - began:.1f} s, answered after {time.monotonic() - began:.1f} s")
    assert set(said.values()) == {'{"greeting":"Hello, Ada!","language":"en"}'}
    status = empty.platform.status(namespace, "greeter")
    assert status["url"].startswith(f"http://{traefik.BY_INGRESS}/function/greeter")
    claims_are_kept(empty)

    empty.platform.helm("uninstall", "my-functions", "--namespace", namespace, "--wait")
    empty.platform.helm("uninstall", "torpor", "--namespace", NAMESPACE, "--wait")
    kept = {f"CustomResourceDefinition <none> {name}" for name in DEFINITIONS}
    clean(empty, before | kept | {"APIService <none> v1alpha1.torpor.dev"})
    assert kept <= empty.objects()


def claims_are_kept(empty: Empty) -> None:
    """They can't be changed, which is refused in words; an upgrade that leaves them as they are goes well."""
    with pytest.raises(ClusterError, match=r"nats\.storage: is .*a StatefulSet's claims can't be changed"):
        empty.install(**ENTRIES, nats={"storage": {"size": "2Gi"}})
    empty.install("--reuse-values")


def test_definitions_are_taken_over_and_go_where_that_is_wanted(
    empty: Empty, namespace: str, greeter_image: str
) -> None:
    before = empty.objects()
    empty.install()
    empty.platform.helm("uninstall", "torpor", "--namespace", NAMESPACE, "--wait")
    empty.install(crds={"keep": False}, nats={"storage": {"persistent": False}})
    empty.deploy(namespace, greeter_image, scaling={"minScale": 1})
    empty.platform.helm("uninstall", "my-functions", "--namespace", namespace, "--wait")
    empty.platform.helm("uninstall", "torpor", "--namespace", NAMESPACE, "--wait")
    clean(empty, before)


def clean(empty: Empty, before: set[str]) -> None:
    """Wait until the cluster has nothing that it did not have before."""
    try:
        until(lambda: not empty.objects() - before, "an empty cluster")
    except AssertionError:
        raise AssertionError(f"left behind: {sorted(empty.objects() - before)}") from None


@pytest.mark.parametrize("host", [GATEWAY, traefik.BY_INGRESS, traefik.BY_ROUTE])
def test_an_upgrade_loses_no_request(
    empty: Empty, namespace: str, greeter_image: str, ingress_controller: None, host: str
) -> None:
    values = {**ENTRIES, "nats": {"storage": {"persistent": False}}}
    empty.install(**values)
    empty.deploy(namespace, greeter_image, scaling={"minScale": 2, "maxScale": 2})
    before, token = pods(empty), secret(empty)
    path = GREETED.format(namespace)
    with traffic(empty.cluster, namespace, greeter_image, path, host=host, connections=CONNECTIONS) as load:
        load.go()
        annotations = {"torpor.dev/tried": "upgrade"}
        empty.install(**values, podAnnotations=annotations, logLevel="DEBUG")
        until(lambda: not pods(empty) & before, "the end of all former pods")
        try:
            outcome = load.check()
        except AssertionError:
            print(empty.cluster.kubectl("logs", "deployment/traefik", "-n", traefik.NAMESPACE, "--tail=2000"))
            raise
    assert secret(empty) == token
    print(f"\n{host}: {outcome.answered} answered, the slowest after {outcome.slowest:.2f} s")


def pods(empty: Empty) -> set[str]:
    """The platform's pods, those that are about to end too."""
    listed = empty.cluster.get("pods", "--namespace", NAMESPACE)["items"]
    return {pod["metadata"]["uid"] for pod in listed}


def secret(empty: Empty) -> str:
    found: str = empty.cluster.get("secret", "torpor-nats", "--namespace", NAMESPACE)["data"]["token"]
    return found


def test_three_nats_servers_bear_the_loss_of_any_one(empty: Empty) -> None:
    """Each is deleted with what it has stored; what it had comes back to it from the others."""
    empty.install(nats={"replicas": 3, "storage": {"persistent": False}})
    place = find_place("kube:", str(empty.cluster.kubeconfig))
    sent: list[str] = []
    with Client(place) as client:

        def send(name: str) -> None:
            event = WireEvent({"specversion": "1.0", "id": name, "source": "/s", "type": "t"}, None)
            until(lambda: _taken(client, event), f"event {name} taken")
            sent.append(name)

        for number in range(3):
            send(f"before-{number}")
            pod = (f"pod/torpor-nats-{number}", "--namespace", NAMESPACE)
            empty.cluster.kubectl("delete", *pod, "--grace-period=0", "--force")
            send(f"without-{number}")
            until(lambda: sum(map(is_ready, empty.platform.parts("nats"))) == 3, "three servers again")
        for name in sent:
            [item] = client.explain(name).items
            assert item.steps[0].what == "accepted"


def _taken(client: Client, event: WireEvent) -> bool:
    """Whether a broker takes an event; the same one may be sent again, and is kept once."""
    try:
        client.send([event])
    except ApiError:
        return False
    return True
