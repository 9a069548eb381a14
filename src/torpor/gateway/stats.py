"""Reads the load of functions out of Envoy's statistics. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from torpor.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "cluster."
_ACTIVE = ".upstream_rq_active"
_TOTAL = ".upstream_rq_total"
_HOST_ACTIVE = "rq_active"
_LISTENER_PREFIX = "http."
_LISTENER_ACTIVE = ".downstream_rq_active"
_LISTENER_TOTAL = ".downstream_rq_total"


@dataclass(slots=True)
class ClusterStats:
    """Requests of one cluster: under way now, and since it was made."""

    active: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of all callers: under way now, and since Envoy was started."""

    active: int = 0
    total: int = 0


def traffic_path(listeners: Iterable[str]) -> str:
    """Where Envoy's admin interface tells of the requests that came to ``listeners``."""
    pattern = rf"^http\.({'|'.join(map(re.escape, listeners))})\.downstream_rq_(active|total)$"
    return f"/stats?format=json&filter={quote(pattern, safe='')}"


def parse_traffic(document: bytes) -> Traffic:
    """The requests of all listeners together, in such an answer."""
    active = total = 0
    for stat in orjson.loads(document)["stats"]:
        name = stat.get("name", "")
        if name.startswith(_LISTENER_PREFIX) and name.endswith(_LISTENER_ACTIVE):
            active += stat["value"]
        elif name.startswith(_LISTENER_PREFIX) and name.endswith(_LISTENER_TOTAL):
            total += stat["value"]
    return Traffic(active, total)


def hosts_path(key: str) -> str:
    """Where Envoy's admin interface tells of the hosts of one cluster."""
    return f"/clusters?format=json&filter={quote('^' + re.escape(key) + '$', safe='')}"


def parse_hosts(document: bytes) -> dict[Endpoint, int]:
    """Requests under way by host, in an answer for one cluster; unix sockets are left out."""
    found: dict[Endpoint, int] = {}
    clusters: list[dict[str, Any]] = orjson.loads(document).get("cluster_statuses", [])
    for host in (host for cluster in clusters for host in cluster.get("host_statuses", ())):
        address = host.get("address", {}).get("socket_address")
        if address is not None:
            # A value that is zero is left out.
            active = next(
                (int(one.get("value", 0)) for one in host["stats"] if one["name"] == _HOST_ACTIVE), 0
            )
            found[Endpoint(address["address"], address["port_value"])] = active
    return found


def parse(document: bytes) -> dict[str, ClusterStats]:
    """The functions' clusters, by key, in an answer to ``/stats?format=json``; others are left out."""
    found: dict[str, ClusterStats] = {}
    for stat in orjson.loads(document)["stats"]:
        name = stat.get("name", "")
        if not name.startswith(_PREFIX):
            continue
        cluster, dot, kind = name[len(_PREFIX) :].rpartition(".")
        if not dot or "/" not in cluster:
            continue
        stats = found.setdefault(cluster, ClusterStats())
        if f".{kind}" == _ACTIVE:
            stats.active = stat["value"]
        elif f".{kind}" == _TOTAL:
            stats.total = stat["value"]
    return found
