"""How images of functions are called, and how a builder is called for them: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BUILDERS = ("docker", "podman", "buildah")
"""Programs that build images, in the order in which they are tried; all take the same options."""
BASE = "docker.io/library/python:3.13-slim"
REPOSITORY = "localhost"

# Distribution's grammar of references, as far as people mistype them.
_REFERENCE = re.compile(
    r"(?=.{1,255}$)[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:\w[\w.-]{0,127})?", re.ASCII
)
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_TAG_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person chose for the builds of one call."""

    builder: str
    base: str = BASE
    index: str = ""
    platform: str = ""
    more: tuple[str, ...] = ()
    """Options for the builder that are handed on as they are."""


def command(choices: Choices, reference: str, folder: Path) -> list[str]:
    """How the builder is called to make ``reference`` of the context in ``folder``."""
    arguments = {"BASE": choices.base, "INDEX": choices.index}
    return [
        choices.builder,
        "build",
        *(("--platform", choices.platform) if choices.platform else ()),
        *(word for name, value in arguments.items() if value for word in ("--build-arg", f"{name}={value}")),
        *choices.more,
        "--tag",
        reference,
        "--file",
        str(folder / "Dockerfile"),
        str(folder),
    ]


def default_reference(repository: str, name: str, digest: str) -> str:
    """The reference of the image with this ``digest``. It names a registry, so no builder adds its own."""
    return f"{repository.rstrip('/')}/{name}:{digest[:_TAG_LENGTH]}"


def check_reference(reference: str) -> str | None:
    """What is wrong with ``reference``, if anything is."""
    if _REFERENCE.fullmatch(reference):
        return None
    return f"{reference!r} is no image reference, one such as 'registry.example/team/hello:1.0' was expected"


def check_platform(platform: str) -> str | None:
    """What is wrong with ``platform``, if anything is."""
    if _PLATFORM.fullmatch(platform):
        return None
    return f"{platform!r} is no platform, one such as 'linux/amd64' was expected"
