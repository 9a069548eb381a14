"""Addresses of test clusters: each has its own, and none that the machine uses."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from tests.cluster.network import SLOTS, Network, free, routes
from tests.cluster.settings import ClusterError

TABLE = """\
default via 192.0.2.1 dev eth0
10.78.0.0/30 dev torpor-node0 proto kernel scope link src 10.78.0.2
10.192.0.0/16 via 10.78.0.1 dev torpor-node0
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2
local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
broadcast 127.255.255.255 dev lo table local proto kernel scope link src 127.0.0.1
"""


def test_what_the_machine_has_routes_to() -> None:
    wanted = ("10.78.0.0/30", "10.192.0.0/16", "192.0.2.0/24", "127.0.0.1/32", "127.255.255.255/32")
    assert routes(TABLE) == [IPv4Network(one) for one in wanted]
    assert routes("") == []


def test_the_first_free_slot_is_taken() -> None:
    assert free([]).number == 0
    assert free(routes(TABLE)).number == 1
    assert free([IPv4Network("10.129.5.0/24"), *routes(TABLE)]).number == 2
    assert free([IPv4Network("0.0.0.0/0")]).number == 0  # the default route leads there, and is no claim


def test_when_all_is_taken_it_is_said() -> None:
    with pytest.raises(ClusterError, match="no private addresses are free"):
        free([IPv4Network("10.0.0.0/8")])


def test_slots_never_overlap() -> None:
    slots = [Network(number) for number in range(SLOTS)]
    networks = [one for slot in slots for one in (slot.link, slot.pods, slot.services)]
    assert not any(a.overlaps(b) for i, a in enumerate(networks) for b in networks[i + 1 :])
    assert all(len(slot.host_link) <= 15 for slot in slots)  # the kernel's limit


def test_addresses_of_a_slot() -> None:
    slot = Network(3)
    assert (slot.node_address, slot.host_address) == ("10.78.3.1", "10.78.3.2")
    assert (slot.api_service, slot.dns_service) == ("10.195.0.1", "10.195.0.10")
    assert slot.node_pods == IPv4Network("10.131.0.0/22")
