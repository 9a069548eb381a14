"""Reads the load of functions out of Envoy's statistics. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

_PREFIX = "cluster."
_ACTIVE = ".upstream_rq_active"
_TOTAL = ".upstream_rq_total"


@dataclass(slots=True)
class ClusterStats:
    """Requests of one cluster: under way now, and since it was made."""

    active: int = 0
    total: int = 0


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
