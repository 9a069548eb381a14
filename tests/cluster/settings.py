"""What the environment says about the cluster for tests, read here alone."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
WAYS = ("auto", "node", "kind", "kubeconfig")


class ClusterError(Exception):
    """There can be no cluster; the text says why, and what a person can do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the cluster comes from and where it keeps its files."""

    way: str
    """`TORPOR_CLUSTER`: `node` (started here), `kind`, `kubeconfig` (an existing one), or `auto`."""
    home: Path
    """`TORPOR_CLUSTER_HOME`: binaries, images and the state of what runs; by default below ~/.cache."""
    cache: Path | None
    """`TORPOR_CLUSTER_CACHE`: folder of `*.tar.zst` and `*.zst` with binaries that are built already."""
    name: str
    """`TORPOR_CLUSTER_NAME`: several clusters with names of their own stand side by side; by default each
    folder of the repository has its own.
    """
    kubeconfig: Path | None
    """`KUBECONFIG`: the cluster to use where the way is `kubeconfig`."""
    import_command: str
    """`TORPOR_CLUSTER_IMPORT`: shell command that brings the image `$1` to an existing cluster's nodes."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read ``environment`` (default: this process's); raises :class:`ClusterError` for a wrong value."""
        source = os.environ if environment is None else environment
        way = source.get("TORPOR_CLUSTER") or "auto"
        if way not in WAYS:
            raise ClusterError(f"TORPOR_CLUSTER is {way!r}, one of {', '.join(WAYS)} was expected")
        cache = source.get("TORPOR_CLUSTER_CACHE")
        kubeconfig = source.get("KUBECONFIG")
        home = source.get("TORPOR_CLUSTER_HOME") or "~/.cache/torpor/cluster"
        return cls(
            way=way,
            home=Path(home).expanduser().absolute(),
            cache=Path(cache).expanduser().absolute() if cache else None,
            name=source.get("TORPOR_CLUSTER_NAME") or default_name(ROOT),
            kubeconfig=Path(kubeconfig).expanduser().absolute() if kubeconfig else None,
            import_command=source.get("TORPOR_CLUSTER_IMPORT", ""),
        )

    @property
    def platform_image(self) -> str:
        """The reference of the platform's image."""
        return f"localhost/torpor:{self.name}"

    @property
    def state(self) -> Path:
        """What is thrown away with the cluster."""
        return self.home / "run" / self.name


def default_name(root: Path) -> str:
    """A name of the cluster that belongs to the repository at ``root``."""
    return "torpor-" + hashlib.sha256(str(root).encode()).hexdigest()[:8]
