"""Addresses of a cluster that stands beside others on one machine: pure.

Each cluster has a slot, which no route of this machine may touch: a link between the machine and the node, a
network of pods and one of services.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable

SLOTS = 32


@dataclass(frozen=True, slots=True)
class Network:
    """The addresses of slot ``number``."""

    number: int

    @property
    def link(self) -> IPv4Network:
        """Between the machine and the node."""
        return IPv4Network(f"10.78.{self.number}.0/30")

    @property
    def node_address(self) -> str:
        """The node's end of the link; its API server listens there."""
        return str(self.link[1])

    @property
    def host_address(self) -> str:
        """This machine's end of the link."""
        return str(self.link[2])

    @property
    def host_link(self) -> str:
        """Name of this machine's end of the link."""
        return f"torpor-node{self.number}"

    @property
    def pods(self) -> IPv4Network:
        """Addresses of the cluster's pods."""
        return IPv4Network(f"10.{128 + self.number}.0.0/16")

    @property
    def node_pods(self) -> IPv4Network:
        """Those of the one node: room for a thousand pods."""
        return next(self.pods.subnets(new_prefix=22))

    @property
    def services(self) -> IPv4Network:
        """Addresses of the cluster's services."""
        return IPv4Network(f"10.{192 + self.number}.0.0/16")

    @property
    def api_service(self) -> str:
        """Address of the API server's own service, always the first."""
        return str(self.services[1])

    @property
    def dns_service(self) -> str:
        """Address of the cluster's name server."""
        return str(self.services[10])


def free(taken: Iterable[IPv4Network]) -> Network:
    """The first slot that overlaps none of ``taken``; raises :class:`ClusterError` when there is none."""
    networks = [network for network in taken if network.prefixlen > 0]
    for number in range(SLOTS):
        slot = Network(number)
        ours = (slot.link, slot.pods, slot.services)
        if not any(one.overlaps(other) for one in ours for other in networks):
            return slot
    raise ClusterError("no private addresses are free for a cluster: end one by 'make cluster-down'")


def routes(table: str) -> list[IPv4Network]:
    """The IPv4 networks that ``table`` (as ``ip -4 route show table all`` prints it) leads to."""
    found = []
    for line in table.splitlines():
        words = line.split()
        if words and words[0] in ("local", "broadcast", "unreachable", "blackhole"):
            words = words[1:]
        if words and words[0][0].isdigit():
            found.append(IPv4Network(words[0], strict=False))
    return found
