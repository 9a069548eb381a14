"""The stage in a Kubernetes: installed by the chart, deployed to and looked at by the command line's ways."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import orjson

from demo.errors import DemoError
from demo.stage import change, copies
from tests.cluster.clusters import Cluster, find
from tests.cluster.platform import Platform
from tests.cluster.settings import ClusterError, Settings
from torpor.api.client import Client
from torpor.api.places import find as find_place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Self

    from torpor.api.places import Place

_CONTEXT = "kube:"
_FUNCTION = "torpor.dev/function"
_ENDING_SECONDS = 120.0
_LOOK_SECONDS = 0.5
_KINDS = "functions.torpor.dev,triggers.torpor.dev"


class InCluster:
    """A platform in the cluster that tests use: see :class:`demo.stage.Stage`. ``say`` is told the story."""

    def __init__(self, functions: Path, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._greeter = functions / "greeter"
        self._folders = copies(functions, folder)
        self._say = say
        self._undo = ExitStack()
        settings = Settings.from_environment()
        self._source = find(settings, say)
        self._cluster: Cluster | None = None
        self._place: Place | None = None
        self._settings = settings
        self.url = ""
        self.host = ""

    def __enter__(self) -> Self:
        try:
            with self._undo:
                self._set_up()
                self._undo = self._undo.pop_all()
        except ClusterError as error:
            raise DemoError(str(error)) from error
        return self

    def _set_up(self) -> None:
        if not self._source.is_up():
            self._undo.callback(self._source.down)
            self._source.up()
        cluster = self._cluster = Cluster(self._source, self._settings)
        self._say("building the platform's image and those of the functions")
        image = self._source.build_platform()
        cluster.import_image(image)
        cluster.import_nats()
        folders = (self._greeter, *self._folders)
        built = {name: image for folder in folders for name, image in cluster.build(folder).items()}
        (self._folder / "images.json").write_bytes(
            orjson.dumps([{"function": f"default/{name}", "image": one} for name, one in built.items()])
        )
        self._say("installing the platform by its chart")
        platform = Platform(cluster)
        self._undo.callback(platform.uninstall)
        platform.install(image)
        self._undo.callback(cluster.kubectl, "delete", _KINDS, "--all", "--namespace=default", "--wait")
        self._say("deploying the functions")
        self._deploy(*folders)
        self._place = find_place(_CONTEXT, str(cluster.kubeconfig))
        self.url = self._undo.enter_context(platform.reachable())
        self.host = _own_address_towards(cluster)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def client(self) -> Client:
        """A new client of its REST API, through the API server."""
        if self._place is None:
            raise DemoError("the platform is not up")
        return Client(self._place)

    def look(self) -> None:
        """Pods carry labels: what is left is found by them."""

    def change(self, function: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Deploy the changed declaration."""
        change(self._folders, function, edit)
        self._deploy(*self._folders)

    def end(self) -> None:
        """Take the functions and the platform away, and the cluster if it was made for this."""
        try:
            self._undo.close()
        except ClusterError as error:
            raise DemoError(str(error)) from error

    def left(self) -> int:
        """Pods of the platform and of functions that had time to end and did not."""
        if not self._source.is_up():
            return 0
        deadline = time.monotonic() + _ENDING_SECONDS
        while (left := self._pods()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return left

    def _pods(self) -> int:
        selectors = (_FUNCTION, "app.kubernetes.io/part-of=torpor")
        found = (self._up.get("pods", "--all-namespaces", "--selector", one) for one in selectors)
        return sum(len(pods["items"]) for pods in found)

    @property
    def _up(self) -> Cluster:
        if self._cluster is None:
            raise DemoError("the cluster is not up")
        return self._cluster

    def _deploy(self, *paths: Path) -> None:
        images = str(self._folder / "images.json")
        command = [sys.executable, "-m", "torpor.cli", "--context", _CONTEXT, "deploy", "--images", images]
        done = subprocess.run(
            [*command, *map(str, paths)],
            capture_output=True,
            text=True,
            env={**os.environ, "KUBECONFIG": str(self._up.kubeconfig)},
            check=False,
        )
        if done.returncode:
            raise DemoError(f"torpor deploy failed: {done.stderr.strip()}")


def _own_address_towards(cluster: Cluster) -> str:
    """The address of this machine that a node, and so its pods, can reach."""
    [address, *_] = cluster.get("nodes")["items"][0]["status"]["addresses"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address["address"], 9))  # sends nothing: it only asks for the route
        return str(probe.getsockname()[0])
