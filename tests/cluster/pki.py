"""Keys and certificates of a node, made by openssl, and the kubeconfig files that go with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cluster import shell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.network import Network

_DAYS = "30"
_KEY = ("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate names, and where it serves."""

    name: str
    subject: str
    names: str = ""
    """Subject alternative names of a server; empty for a client."""


def identities(network: Network) -> tuple[Identity, ...]:
    """Everyone who has a certificate."""
    services = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
    addresses = ("127.0.0.1", network.node_address, network.api_service)
    names = ",".join([*(f"DNS:{name}" for name in services), *(f"IP:{address}" for address in addresses)])
    return (
        Identity("apiserver", "/CN=kube-apiserver", names),
        Identity("apiserver-to-kubelet", "/O=system:masters/CN=kube-apiserver"),
        Identity("front-proxy", "/CN=front-proxy-client"),
        Identity("admin", "/O=system:masters/CN=admin"),
        Identity("controller-manager", "/CN=system:kube-controller-manager"),
        Identity("scheduler", "/CN=system:kube-scheduler"),
        Identity("proxy", "/CN=system:kube-proxy"),
        Identity("node1", "/O=system:nodes/CN=system:node:node1", f"DNS:node1,IP:{network.node_address}"),
    )


def make(folder: Path, network: Network) -> None:
    """Write the authority and every certificate of :func:`identities` into ``folder``."""
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    authority, key = folder / "ca.crt", folder / "ca.key"
    shell.run(*_KEY, key)
    shell.run(
        *("openssl", "req", "-x509", "-new", "-key", key, "-subj", "/CN=torpor-test", "-days", _DAYS),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", authority),
    )
    for one in identities(network):
        usage = "clientAuth,serverAuth" if one.names else "clientAuth"
        lines = ["keyUsage=critical,digitalSignature", f"extendedKeyUsage={usage}"]
        lines += [f"subjectAltName={one.names}"] if one.names else []
        own = folder / f"{one.name}.key"
        shell.run(*_KEY, own)
        request = shell.run("openssl", "req", "-new", "-key", own, "-subj", one.subject)
        extensions = folder / f"{one.name}.ext"
        extensions.write_text("\n".join(lines) + "\n")
        shell.run(
            *("openssl", "x509", "-req", "-CA", authority, "-CAkey", key, "-CAcreateserial", "-days", _DAYS),
            *("-extfile", extensions, "-out", folder / f"{one.name}.crt"),
            text=request,
        )
    shell.run("openssl", "genrsa", "-out", folder / "service-accounts.key", "2048")


def kubeconfig(folder: Path, name: str, server: str) -> str:
    """The kubeconfig by which ``name``, whose certificate is in ``folder``, reaches ``server``.

    JSON, which is YAML as well.
    """
    cluster = {"server": server, "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "torpor-test", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "torpor-test", "context": {"cluster": "torpor-test", "user": name}}],
        "current-context": "torpor-test",
    }
    return json.dumps(document, indent=2)
