"""Requirements of a function: whether they are met already, and the key of their environment: pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.metadata import Distribution


def lines(text: str) -> list[str]:
    """The requirements and options of a requirements file, as pip reads it: no comments, lines joined."""
    joined = text.replace("\\\r\n", "").replace("\\\n", "")
    found = []
    for line in joined.splitlines():
        content = "" if line.lstrip().startswith("#") else line.partition(" #")[0].strip()
        if content:
            found.append(content)
    return found


def satisfied(wanted: Iterable[str], installed: Callable[[str], Distribution | None]) -> bool:
    """Whether each of ``wanted`` is met by what ``installed`` finds under its name, extras included.

    An option, a path or an address is never met: only pip knows what it stands for.
    """
    seen: set[str] = set()
    try:
        return all(_met(Requirement(line), installed, seen, extra="") for line in wanted)
    except InvalidRequirement:
        return False


def _met(
    requirement: Requirement, installed: Callable[[str], Distribution | None], seen: set[str], extra: str
) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
        return True
    if requirement.url is not None:
        return False
    distribution = installed(requirement.name)
    if distribution is None or not requirement.specifier.contains(distribution.version, prereleases=True):
        return False
    for wanted_extra in requirement.extras:
        step = f"{canonicalize_name(requirement.name)}[{canonicalize_name(wanted_extra)}]"
        if step in seen:
            continue
        seen.add(step)
        needs = [Requirement(line) for line in distribution.requires or ()]
        if not all(_met(need, installed, seen, wanted_extra) for need in needs):
            return False
    return True


def environment_key(parts: Iterable[bytes]) -> str:
    """A name for the environment that ``parts`` determine: requirements, interpreter, Torpor's own needs."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:24]
