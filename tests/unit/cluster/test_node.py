"""What a node of one's own is configured with, its images, and the process that holds it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.cluster import pki
from tests.cluster.archive import write_image
from tests.cluster.clusters import choose
from tests.cluster.configs import Layout, commands, files
from tests.cluster.network import Network
from tests.cluster.process import Remembered
from tests.cluster.settings import ClusterError, Settings, default_name

LAYOUT = Layout(Path("/state"), Path("/bin dir"), Network(2), "torpor-x")


def test_every_part_gets_its_slot_and_its_files() -> None:
    kubelet = json.loads(files(LAYOUT)["kubelet.yaml"])
    assert kubelet["clusterDNS"] == ["10.194.0.10"]
    assert kubelet["cgroupRoot"] == "/torpor-x"
    cni = json.loads(files(LAYOUT)["cni/10-bridge.conflist"])
    assert cni["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.130.0.0/22"}]]
    scripts = commands(LAYOUT)
    assert scripts["kube-apiserver"].startswith("#!/bin/sh\nexec '/bin dir/kube-apiserver' --etcd-servers=")
    assert "--service-cluster-ip-range=10.194.0.0/16" in scripts["kube-apiserver"]
    assert "--node-cidr-mask-size=22" in scripts["kube-controller-manager"]


def test_configured_files_are_those_that_are_written() -> None:
    """Whatever a part is told to read below the state's folder is one that somebody writes there."""
    written = {
        *files(LAYOUT),
        *(f"{who}.kubeconfig" for who in ("controller-manager", "scheduler", "node1", "proxy")),
    }
    keys = {f"pki/{one.name}.{kind}" for one in pki.identities(LAYOUT.network) for kind in ("crt", "key")}
    written |= keys | {"pki/ca.crt", "pki/ca.key", "pki/service-accounts.key"}
    for script in commands(LAYOUT).values():
        for word in script.split():
            _, found, name = word.partition("/state/")
            assert not found or name in written, word


def test_servers_certificates_name_where_they_serve() -> None:
    names = {one.name: one.names for one in pki.identities(Network(2))}
    assert "IP:10.78.2.1,IP:10.194.0.1" in names["apiserver"]
    assert names["node1"] == "DNS:node1,IP:10.78.2.1"
    assert names["admin"] == ""
    config = json.loads(pki.kubeconfig(Path("/pki"), "admin", LAYOUT.server))
    assert config["clusters"][0]["cluster"]["server"] == "https://10.78.2.1:6443"
    assert config["users"][0]["user"]["client-key"] == "/pki/admin.key"


def test_images_of_files_alone(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"run me")
    for name in ("a.tar", "b.tar"):
        write_image(tmp_path / name, "localhost/x:1", {"/bin/x": program}, ["/bin/x"])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        content = {member.name: archive.extractfile(member) for member in archive}
        read = {name: file.read() for name, file in content.items() if file is not None}
    (manifest,) = json.loads(read["manifest.json"])
    config = json.loads(read[manifest["Config"]])
    assert manifest["RepoTags"] == ["localhost/x:1"]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(read["layer.tar"]).hexdigest()]
    assert config["config"]["Entrypoint"] == ["/bin/x"]
    (tmp_path / "layer.tar").write_bytes(read["layer.tar"])
    with tarfile.open(tmp_path / "layer.tar") as layer:
        assert [(member.name, member.mode) for member in layer] == [("bin/x", 0o755)]


def test_a_process_is_known_by_more_than_its_id(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path / "pid")

    def known() -> int | None:
        return remembered.pid

    assert known() is None
    with subprocess.Popen(["sleep", "60"]) as process:
        remembered.remember(process.pid)
        assert known() == process.pid
        (tmp_path / "pid").write_text(f"{process.pid} 1")  # another that had the same id
        assert known() is None
        remembered.kill()
        assert process.poll() is None
        remembered.remember(process.pid)
        remembered.kill()
    assert known() is None
    (tmp_path / "pid").write_text("rubbish")
    assert known() is None


def test_the_way_to_a_cluster() -> None:
    assert choose("auto", kind_works=lambda: True) == "kind"
    assert choose("auto", kind_works=lambda: False) == "node"
    assert choose("kubeconfig", kind_works=lambda: True) == "kubeconfig"


def test_what_the_environment_says() -> None:
    settings = Settings.from_environment({"TORPOR_CLUSTER_HOME": "/home", "TORPOR_CLUSTER_NAME": "x"})
    assert (settings.way, settings.state, settings.cache) == ("auto", Path("/home/run/x"), None)
    assert Settings.from_environment({"TORPOR_CLUSTER_CACHE": "~/c"}).cache == Path.home() / "c"
    assert default_name(Path("/a")) != default_name(Path("/b"))
    with pytest.raises(ClusterError, match="TORPOR_CLUSTER is 'mine', one of auto, node, kind, kubeconfig"):
        Settings.from_environment({"TORPOR_CLUSTER": "mine"})
