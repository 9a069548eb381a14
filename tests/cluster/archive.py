"""Images from files alone, as the archives that ``docker load`` and containerd import: no builder at work."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_EPOCH = "1970-01-01T00:00:00Z"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def write_image(target: Path, reference: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> None:
    """Write to ``target`` the image ``reference``; it holds ``files`` (absolute path inside -> file here)."""
    layer = _tar({name.lstrip("/"): path.read_bytes() for name, path in files.items()}, mode=0o755)
    settings = {"Entrypoint": list(entrypoint), "User": "65532:65532", "WorkingDir": "/", "Env": ["PATH=/"]}
    config = json.dumps(_config(layer, settings)).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    part = target.with_name(target.name + ".part")
    part.write_bytes(_tar({name: config, "manifest.json": manifest, "layer.tar": layer}, mode=0o644))
    part.rename(target)


def _config(layer: bytes, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": _EPOCH,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    """An archive of ``files`` that is the same whenever and by whomever it is made."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = mode
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
