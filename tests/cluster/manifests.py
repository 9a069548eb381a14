"""Objects that tests apply: pure."""

from __future__ import annotations

from typing import Any

RESTRICTED: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsGroup": 65532,  # else it is root's, whatever the image says
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""A security context that keeps the restricted Pod Security profile, and more."""
PORT = 8080


def pod_spec(image: str, **container: Any) -> dict[str, Any]:
    """A pod of one container; ``container`` has what else there is to say of it."""
    main = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        **container,
    }
    return {"containers": [main], "automountServiceAccountToken": False}


def probe(path: str, **more: Any) -> dict[str, Any]:
    """A probe of the port that functions serve on."""
    return {"httpGet": {"path": path, "port": PORT}, "periodSeconds": 1, **more}


def function(name: str, image: str, replicas: int = 1) -> list[dict[str, Any]]:
    """A Deployment of a function's image and a Service in front of it."""
    labels = {"app": name}
    spec = pod_spec(
        image,
        ports=[{"containerPort": PORT}],
        livenessProbe=probe("/healthz/live", failureThreshold=30),
        readinessProbe=probe("/healthz/ready"),
    )
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]},
    }
    return [deployment, service]


def client(image: str, script: str, *arguments: str) -> dict[str, Any]:
    """A pod that runs a Python ``script`` once."""
    spec = pod_spec(image, command=["python3", "-u", "-c", script, *arguments])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {**spec, "restartPolicy": "Never"},
    }
