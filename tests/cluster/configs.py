"""What the parts of a node are configured with and started by: pure.

JSON stands wherever YAML is read: it is YAML as well.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.network import Network

PAUSE_IMAGE = "localhost/torpor-pause:1"
DNS_IMAGE = "localhost/torpor-coredns:1"
API_PORT = 6443
VOLUMES = 64
"""Volumes that a cluster has in its life: nobody makes more, or cleans one that was used."""
_CONTAINERD = "/run/containerd/containerd.sock"

_CONTAINERD_TOML = """version = 2
root = "{state}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        SystemdCgroup = false
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a node's files are, and its addresses."""

    state: Path
    binaries: Path
    network: Network
    cgroup: str

    @property
    def server(self) -> str:
        """Address of the API server."""
        return f"https://{self.network.node_address}:{API_PORT}"


def files(layout: Layout) -> dict[str, str]:
    """Every configuration file, by its name below the state's folder."""
    state = layout.state
    return {
        "containerd.toml": _CONTAINERD_TOML.format(state=state, socket=_CONTAINERD, pause=PAUSE_IMAGE),
        "cni/10-bridge.conflist": json.dumps(_cni(layout.network), indent=2),
        "kubelet.yaml": json.dumps(_kubelet(layout), indent=2),
        "proxy.yaml": json.dumps(_proxy(layout), indent=2),
        "resolv.conf": "",
    }


def _cni(network: Network) -> dict[str, Any]:
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": str(network.node_pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**bridge, "ipam": ipam}, ports]}


def _kubelet(layout: Layout) -> dict[str, Any]:
    pki = layout.state / "pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.network.node_address,
        "containerRuntimeEndpoint": f"unix://{_CONTAINERD}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "node1.crt"),
        "tlsPrivateKeyFile": str(pki / "node1.key"),
        "clusterDNS": [layout.network.dns_service],
        "clusterDomain": "cluster.local",
        "resolvConf": str(layout.state / "resolv.conf"),
        "oomScoreAdj": 0,
        "maxOpenFiles": 1024,  # as many as this machine allows: it lets nobody raise limits
        "maxPods": 1000,
        "podPidsLimit": -1,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
    }


def _proxy(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(layout.state / "proxy.kubeconfig")},
        "clusterCIDR": str(layout.network.pods),
        "hostnameOverride": "node1",
        "mode": "nftables",
        "bindAddress": "0.0.0.0",
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
    }


def volumes_list(folder: Path) -> dict[str, Any]:
    """The persistent volumes of the node, each a folder below ``folder``."""
    spec = {
        "capacity": {"storage": "10Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "node",
    }
    items = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"node-{number}"},
            "spec": {**spec, "hostPath": {"path": str(folder / str(number)), "type": "Directory"}},
        }
        for number in range(VOLUMES)
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def commands(layout: Layout) -> dict[str, str]:
    """A shell script for each part, which becomes it."""
    arguments = {
        "etcd": _etcd(),
        "kube-apiserver": _apiserver(layout),
        "kube-controller-manager": _controller_manager(layout),
        "kube-scheduler": _scheduler(layout),
        "kubelet": _kubelet_arguments(layout),
        "kube-proxy": [f"--config={layout.state}/proxy.yaml", "--v=1"],
    }
    scripts = {name: _script([str(layout.binaries / name), *given]) for name, given in arguments.items()}
    config = f"{layout.state}/containerd.toml"
    scripts["containerd"] = _script(["containerd", "--config", config, "--log-level", "info"])
    return scripts


def _script(arguments: list[str]) -> str:
    return f"#!/bin/sh\nexec {shlex.join(arguments)}\n"


def _etcd() -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        "--data-dir=/run/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(layout: Layout) -> list[str]:
    pki = layout.state / "pki"
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={layout.network.node_address}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={layout.network.services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        "--cert-dir=/run/apiserver",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        "--enable-aggregator-routing=true",
        "--v=1",
    ]


def _controller_manager(layout: Layout) -> list[str]:
    pki = layout.state / "pki"
    config = f"{layout.state}/controller-manager.kubeconfig"
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--cert-dir=/run/controller-manager",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--allocate-node-cidrs",
        f"--cluster-cidr={layout.network.pods}",
        f"--node-cidr-mask-size={layout.network.node_pods.prefixlen}",
        "--v=1",
    ]


def _scheduler(layout: Layout) -> list[str]:
    config = f"{layout.state}/scheduler.kubeconfig"
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--cert-dir=/run/scheduler",
        "--leader-elect=false",
        "--v=1",
    ]


def _kubelet_arguments(layout: Layout) -> list[str]:
    return [
        f"--config={layout.state}/kubelet.yaml",
        f"--kubeconfig={layout.state}/node1.kubeconfig",
        "--hostname-override=node1",
        f"--node-ip={layout.network.node_address}",
        "--root-dir=/var/lib/kubelet",
        "--cert-dir=/run/kubelet",
        "--v=1",
    ]
