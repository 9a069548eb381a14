"""The cluster, and a namespace for each test."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.clusters import Cluster, find
from tests.cluster.platform import Platform
from tests.cluster.settings import ROOT, ClusterError, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent

# What a shell starts in the background ignores Ctrl-C, and so does all that is started from here: undo that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that need the platform come last: so it is installed once, and nobody has to put it aside."""
    here = [item for item in items if item.path.parent == HERE]  # others may have fixtures of that name
    need = {item.path for item in here if "platform" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path in need)


def _say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster that is up; one that was up before stays so."""
    settings = Settings.from_environment()
    source = find(settings, _say)
    stays = source.is_up()
    try:
        source.up()
        yield Cluster(source, settings)
    except ClusterError as error:
        pytest.exit(f"there is no cluster: {error}", returncode=1)
    finally:
        if not stays:
            source.down()


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster) -> Path:
    """How to reach the cluster, as its administrator."""
    return cluster.kubeconfig


@pytest.fixture(scope="session")
def import_image(cluster: Cluster) -> Callable[[str], None]:
    """Brings an image of the local builder to the nodes."""
    return cluster.import_image


@contextlib.contextmanager
def _namespace(cluster: Cluster) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.kubectl("create", "--filename=-", text=json.dumps(document))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace in which pods must keep the restricted Pod Security profile."""
    with _namespace(cluster) as name:
        yield name


@pytest.fixture(scope="module")
def module_namespace(cluster: Cluster) -> Iterator[str]:
    """The same for all tests of a module."""
    with _namespace(cluster) as name:
        yield name


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with Torpor's definitions and policies; those that were not there are taken away again."""
    made = []
    for kind, name in (("customresourcedefinitions", "crds"), ("validatingadmissionpolicies", "policies")):
        if "torpor.dev" not in cluster.kubectl("get", kind, "--output=name"):
            made.append(f"--filename={ROOT / 'k8s' / name}")
    if made:
        cluster.kubectl("apply", "--server-side", *made)
    crds = ("functions.torpor.dev", "triggers.torpor.dev", "schedules.torpor.dev")
    for crd in crds:
        cluster.kubectl(
            "wait", f"customresourcedefinition/{crd}", "--for=condition=Established", "--timeout=60s"
        )
    cluster.kubectl("get", "functions,triggers,schedules", "--all-namespaces")  # it waits for their storage
    for policy in ("filters", "schedules"):
        name = f"validatingadmissionpolicy/{policy}.torpor.dev"
        cluster.kubectl("wait", name, "--for=jsonpath={.status.observedGeneration}=1", "--timeout=60s")
    yield cluster
    if made:
        cluster.kubectl("delete", "--wait", *made)


@pytest.fixture(scope="session")
def platform_image(cluster: Cluster) -> str:
    """The platform's image, on the nodes."""
    return cluster.build_platform()


@pytest.fixture(scope="session")
def nats_image(cluster: Cluster) -> str:
    """NATS' own image, or where none can be pulled one of the same name around the program of its wheel."""
    return cluster.import_nats()


@pytest.fixture(scope="session")
def greeter_image(cluster: Cluster) -> str:
    """The image of functions/greeter, on the nodes."""
    return cluster.build(ROOT / "functions" / "greeter")["greeter"]


@pytest.fixture(scope="session")
def platform(cluster: Cluster, platform_image: str) -> Iterator[Platform]:
    """Torpor, installed by its chart for all tests that need no more than that."""
    platform = Platform(cluster)
    cluster.import_image(platform_image)
    cluster.import_nats()
    platform.install(platform_image)
    yield platform
    platform.uninstall()
