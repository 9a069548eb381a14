"""A wheel of the very Torpor that runs, made of its installed files: no build backend, no network.

It is for images that are built before this version is on an index, as when working on Torpor itself. The same
files give the same bytes, so that a builder finds its layer again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.errors import ImageBuildError

if TYPE_CHECKING:
    from importlib import metadata

_PACKAGE = Path(__file__).parents[1]
_TAG = "py3-none-any"
_WHEEL = f"Wheel-Version: 1.0\nGenerator: torpor build\nRoot-Is-Purelib: true\nTag: {_TAG}\n"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can say


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel in memory."""

    name: str
    content: bytes


def is_from_index(distribution: metadata.Distribution) -> bool:
    """Whether pip took ``distribution`` from an index, so that it can take it from there again.

    Source: PEP 610; what was installed from a folder, a file or an address has a ``direct_url.json``.
    """
    return distribution.read_text("direct_url.json") is None


def own_dependencies(distribution: metadata.Distribution) -> tuple[str, ...]:
    """What ``distribution`` requires, without its extras."""
    return tuple(need for need in distribution.requires or () if "extra ==" not in need)


def make(distribution: metadata.Distribution, package: Path = _PACKAGE) -> Wheel:
    """The wheel of ``distribution``, whose modules are in the folder ``package``."""
    information = f"{distribution.name}-{distribution.version}.dist-info"
    files = {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    described = distribution.read_text("METADATA")
    if described is None:
        raise ImageBuildError(f"the installation of {distribution.name} has no METADATA: install it again")
    files[f"{information}/METADATA"] = described.encode()
    files[f"{information}/WHEEL"] = _WHEEL.encode()
    files[f"{information}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    record = f"{information}/RECORD"
    files[record] = "".join([*(_recorded(name, files[name]) for name in files), f"{record},,\n"]).encode()
    return Wheel(f"{distribution.name}-{distribution.version}-{_TAG}.whl", _zip(files))


def _recorded(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def _zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return stream.getvalue()
