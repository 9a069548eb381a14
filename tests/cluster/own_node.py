"""A real Kubernetes of one node in namespaces of its own on this machine: made, used, and taken away again.

Needs root, Debian's packages and :mod:`tests.cluster.binaries`; neither Docker nor a registry.
The machine's sysctls, firewall, /run and /var stay as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster import archive, network, pki, shell
from tests.cluster.binaries import Binaries, static_program
from tests.cluster.configs import DNS_IMAGE, PAUSE_IMAGE, VOLUMES, Layout, commands, files, volumes_list
from tests.cluster.golang import Go
from tests.cluster.gomod import NODE
from tests.cluster.network import Network
from tests.cluster.podman import Podman
from tests.cluster.process import Remembered, child_of, start_detached
from tests.cluster.settings import ROOT, ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Network

    from tests.cluster.settings import Settings

_HERE = Path(__file__).parent / "node"
_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "systemd")
_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",  # the bridge plugin's masquerading
    "nft": "nftables",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "socat": "socat",
    "curl": "curl",
    "openssl": "openssl",
    "ip": "iproute2",
    "unshare": "util-linux",
}
_PATIENCE_SECONDS = 180.0


class OwnNode:
    """The node that ``settings`` describe."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._state = settings.state
        self._init = Remembered(self._state / "init")
        self._lock = settings.home / f"{settings.name}.lock"
        self.binaries = Binaries(settings, say)
        self.podman = Podman(settings.home, say)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self._state / "admin.kubeconfig"

    def kubectl(self) -> Path:
        """The program."""
        return self.binaries.path("kubectl")

    @property
    def pods(self) -> IPv4Network:
        """The addresses of its pods."""
        return Network(int((self._state / "slot").read_text())).pods

    # --- coming up ----------------------------------------------------------------------------------------

    def up(self) -> None:
        """Have it run, and its node ready. Does nothing when it runs already."""
        if os.geteuid() != 0:
            raise ClusterError("a node of one's own needs root; TORPOR_CLUSTER=kind or kubeconfig does not")
        with self._locked():
            if self.is_up():
                return
            self._remove()
            shell.require(_PACKAGES)
            self.binaries.require(program.name for program in NODE)
            images = self._images()
            began = time.monotonic()
            layout = self._prepare(images)
            self._start(layout)
            self._await_node()
            self._say(f"a Kubernetes of one node is up after {time.monotonic() - began:.0f} s")

    def is_up(self) -> bool:
        """Whether it runs already."""
        return self._init.pid is not None and shell.works(
            str(self.kubectl()), "--kubeconfig", str(self.kubeconfig), "get", "--raw", "/readyz"
        )

    def _images(self) -> list[Path]:
        folder = self._settings.home / "images"
        folder.mkdir(parents=True, exist_ok=True)
        pause = folder / "pause.tar"
        if not pause.exists():
            program = folder / "pause"
            static_program(Go(self._settings, self._say), _HERE / "pause.go", program)
            archive.write_image(pause, PAUSE_IMAGE, {"/pause": program}, ["/pause"])
        names = folder / "coredns.tar"
        if not names.exists():
            archive.write_image(names, DNS_IMAGE, {"/coredns": self.binaries.path("coredns")}, ["/coredns"])
        return [pause, names]

    def _prepare(self, images: list[Path]) -> Layout:
        """Lay out the state's folder; nothing runs yet."""
        taken = network.routes(shell.run("ip", "-4", "route", "show", "table", "all"))
        where = network.free(taken)
        layout = Layout(self._state, self.binaries.folder, where, self._settings.name)
        for name in ("log", "images", "kubelet", "containerd", "commands", "cni", "volumes"):
            (self._state / name).mkdir(parents=True)
        (self._state / "slot").write_text(str(where.number))
        pki.make(self._state / "pki", where)
        for who in ("admin", "controller-manager", "scheduler", "proxy", "node1"):
            config = self._state / f"{who}.kubeconfig"
            config.write_text(pki.kubeconfig(self._state / "pki", who, layout.server))
            config.chmod(0o600)
        for name, text in files(layout).items():
            (self._state / name).write_text(text)
        for name, text in commands(layout).items():
            script = self._state / "commands" / name
            script.write_text(text)
            script.chmod(0o755)
        for image in images:
            os.link(image, self._state / "images" / image.name)
        objects = (_HERE / "objects.yaml").read_text().replace("@DNS@", where.dns_service)
        volumes = json.dumps(volumes_list(self._state / "volumes"))
        (self._state / "objects.yaml").write_text(f"{objects}---\n{volumes}\n")
        for number in range(VOLUMES):
            volume = self._state / "volumes" / str(number)
            volume.mkdir()
            volume.chmod(0o777)  # for whoever claims it
        return layout

    def _start(self, layout: Layout) -> None:
        for folder in ("/var/lib/kubelet", "/var/lib/cni"):
            if not Path(folder).exists():
                Path(folder).mkdir()
                with (self._state / "made").open("a") as made:
                    made.write(folder + "\n")
        _make_cgroups(layout.cgroup)
        where = layout.network
        link = f"{where.node_address}/{where.link.prefixlen}"
        unshare = start_detached(
            self._state / "log" / "init.log",
            self._state / "unshare",
            *("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation", "private", "bash", _HERE / "node.sh", self._state, link, where.host_address),
        )
        pid = child_of(unshare)
        self._init.remember(pid)
        peer = ("peer", "name", "node0", "netns", str(pid))
        shell.run("ip", "link", "add", where.host_link, "type", "veth", *peer)
        host = f"{where.host_address}/{where.link.prefixlen}"
        shell.run("ip", "addr", "add", host, "dev", where.host_link)
        shell.run("ip", "link", "set", where.host_link, "up")
        for target in (where.pods, where.services):
            shell.run("ip", "route", "add", str(target), "via", where.node_address, "dev", where.host_link)

    def _await_node(self) -> None:
        kubectl = (self.kubectl(), "--kubeconfig", self.kubeconfig)
        end = time.monotonic() + _PATIENCE_SECONDS
        steps: tuple[tuple[str, ...], ...] = (
            ("get", "--raw", "/readyz"),
            ("get", "serviceaccount", "default"),
            ("wait", "--for=condition=Ready", "node/node1", "--timeout=10s"),
            ("apply", "--filename", str(self._state / "objects.yaml")),
            ("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=10s"),
        )
        for step in steps:
            while True:
                try:
                    shell.run(*kubectl, *step, timeout_seconds=30)
                    break
                except ClusterError as error:
                    if self._init.pid is None or time.monotonic() > end:
                        logs = self._state / "log"
                        raise ClusterError(f"the node does not come up (logs in {logs}): {error}") from None
                    time.sleep(0.2)

    # --- use ----------------------------------------------------------------------------------------------

    def build_options(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Podman, on a base image that is made here."""
        return ("--builder", "podman", "--base", self.podman.base_image()), self.podman.environment()

    def import_image(self, reference: str) -> None:
        """Bring the image ``reference``, which podman has, to the node."""
        self.podman.save_to(reference, self.on_node("ctr", "-n", "k8s.io", "images", "import", "-"))

    def import_program(self, reference: str, program: Path) -> None:
        """Bring an image ``reference`` with nothing but ``program`` in it to the node: it pulls none."""
        target = self._state / "images" / f"{program.name}.tar"
        archive.write_image(target, reference, {f"/{program.name}": program}, [f"/{program.name}"])
        shell.run(*self.on_node("ctr", "-n", "k8s.io", "images", "import", str(target)))

    def build_platform(self, reference: str | None = None) -> str:
        """Build the platform's image by podman."""
        base = f"BASE={self.podman.base_image()}"
        tag = reference or self._settings.platform_image
        self.podman.run("build", "--build-arg", base, "--tag", tag, ROOT)
        return tag

    def on_node(self, *command: str) -> tuple[str, ...]:
        """``command``, so that it runs on the node."""
        pid = self._init.pid
        if pid is None:
            raise ClusterError("the cluster is not up: make cluster-up")
        return ("nsenter", "--target", str(pid), "--mount", "--pid", "--net", "--", *command)

    # --- going down ---------------------------------------------------------------------------------------

    def down(self) -> None:
        """End it and remove all that it left, but for what the next one uses: programs, images, packages."""
        with self._locked():
            self._remove()

    def _remove(self) -> None:
        self._init.kill()
        Remembered(self._state / "unshare").kill()
        _remove_cgroups(self._settings.name)
        with contextlib.suppress(OSError):
            for folder in (self._state / "made").read_text().split():
                with contextlib.suppress(OSError):  # another cluster's mount point by now
                    Path(folder).rmdir()
        if self._state.exists():
            shutil.rmtree(self._state)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._settings.home.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _make_cgroups(name: str) -> None:
    if (_CGROUPS / "cgroup.controllers").exists():  # version 2: one tree
        controllers = (_CGROUPS / "cgroup.controllers").read_text().split()
        (_CGROUPS / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in controllers))
        (_CGROUPS / name).mkdir(exist_ok=True)
        return
    for controller in _CONTROLLERS:
        if (_CGROUPS / controller).is_dir():
            (_CGROUPS / controller / name).mkdir(exist_ok=True)
    cpuset = _CGROUPS / "cpuset"
    for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, and nothing can run in it then
        (cpuset / name / file).write_text((cpuset / file).read_text())


def _remove_cgroups(name: str) -> None:
    for top in (_CGROUPS, *(_CGROUPS / tree for tree in (*_CONTROLLERS, "unified"))):
        group = top / name
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
