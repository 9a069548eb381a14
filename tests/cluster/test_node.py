"""The cluster itself: what other tests rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.cluster import manifests

if TYPE_CHECKING:
    from tests.cluster.clusters import Cluster

CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "kept"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


def test_volumes_outlive_pods_and_are_there_for_nobody(
    cluster: Cluster, namespace: str, greeter_image: str
) -> None:
    where = ("--namespace", namespace)
    cluster.apply([CLAIM], namespace)
    for script in ("open('/kept/note', 'x').write('still here')", "print(open('/kept/note').read())"):
        pod = manifests.client(greeter_image, script)
        pod["spec"]["volumes"] = [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}]
        pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "kept", "mountPath": "/kept"}]
        cluster.apply([pod], namespace)
        cluster.kubectl(
            "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/client", "--timeout=60s", *where
        )
        said = cluster.kubectl("logs", "client", *where)
        cluster.kubectl("delete", "pod/client", *where)
    assert said == "still here\n"
