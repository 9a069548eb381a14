"""Has the node that is started here enforce NetworkPolicies, while that is wanted.

The judge is ``kube-network-policies``, unchanged: the kernel hands it the first packet of each connection. It
would ask for them by nftables' ``queue``, which many small kernels lack; so iptables' NFQUEUE does here, for
the packets of pods and after addresses of Services have become those of pods. The node's own are not judged:
a kubelet must reach its pods.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster import shell
from tests.cluster.own_node import OwnNode
from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clusters import Cluster

IMAGE = "localhost/torpor-network-policies:1"
_MANIFEST = Path(__file__).parent / "node" / "policies.yaml"
_CHAIN = "TORPOR-POLICIES"
_QUEUE = ("-j", "NFQUEUE", "--queue-num", "100")


@contextlib.contextmanager
def enforcing(cluster: Cluster) -> Iterator[None]:
    """NetworkPolicies hold within the block; a cluster that is not started here has to see to that itself."""
    node = cluster.source
    if not isinstance(node, OwnNode):
        yield
        return
    node.import_program(IMAGE, node.binaries.path("kube-network-policies"))
    try:
        cluster.kubectl("apply", "--server-side", f"--filename={_MANIFEST}")
        where = ("--namespace=kube-system", "--timeout=60s")
        cluster.kubectl("rollout", "status", "daemonset/network-policies", *where)
        pods = str(node.pods)
        _iptables(node, "-N", _CHAIN)
        _iptables(node, "-A", _CHAIN, "-m", "owner", "--uid-owner", "0", "-j", "RETURN")
        _iptables(node, "-A", _CHAIN, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "RETURN")
        _iptables(node, "-A", _CHAIN, "-s", pods, *_QUEUE)
        _iptables(node, "-A", _CHAIN, "-d", pods, *_QUEUE)
        _iptables(node, "-A", "POSTROUTING", "-j", _CHAIN)
        yield
    finally:
        for arguments in (("-D", "POSTROUTING", "-j", _CHAIN), ("-F", _CHAIN), ("-X", _CHAIN)):
            with contextlib.suppress(ClusterError):  # it did not come so far
                _iptables(node, *arguments)
        cluster.kubectl("delete", "--ignore-not-found", "--wait=false", f"--filename={_MANIFEST}")


def _iptables(node: OwnNode, *arguments: str) -> None:
    shell.run(*node.on_node("iptables", "-w", "-t", "mangle", *arguments))
